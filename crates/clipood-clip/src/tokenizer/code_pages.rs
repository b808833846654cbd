//! The single-byte encodings in which UTF-8 is commonly misread. The lower halves are ASCII; bytes that an encoding leaves
//! undefined stand for the Latin-1 control or character of the same number, as `ftfy`'s "sloppy" codecs have it.

/// Upper half of a single-byte encoding.
pub(super) struct CodePage {
    /// Characters of bytes 0x80 to 0xFF, in order.
    upper: &'static str,
    /// Whether byte 0x1A stands for U+FFFD, a character already lost, instead of for itself.
    pub lossy: bool,
}

/// The byte that stands for a lost character.
const LOST: u8 = 0x1A;

impl CodePage {
    /// Characters of bytes 0x80 to 0xFF, in order.
    pub fn upper(&self) -> impl Iterator<Item = char> + use<> {
        self.upper.chars()
    }

    /// Characters of a range of bytes from 0x80 up.
    pub fn characters(
        &self,
        bytes: std::ops::RangeInclusive<u8>,
    ) -> impl Iterator<Item = char> + use<> {
        self.upper()
            .zip(0x80..=0xFFu8)
            .filter(move |(_, byte)| bytes.contains(byte))
            .map(|(c, _)| c)
    }

    /// The bytes that read as `text` in this encoding; `None` if it cannot hold a character of it.
    pub fn encode(&self, text: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(text.len());
        for c in text.chars() {
            let byte = match c {
                '\u{1A}' if self.lossy => return None,
                '\u{FFFD}' if self.lossy => LOST,
                '\0'..='\x7F' => c as u8,
                _ => 0x80 + self.upper().position(|upper| upper == c)? as u8,
            };
            bytes.push(byte);
        }
        Some(bytes)
    }
}

/// CP437.
pub(super) static CP437: CodePage = CodePage {
    lossy: false,
    upper: "\
        ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ\
        áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
        └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀\
        αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}",
};

/// ISO-8859-2.
pub(super) static ISO_8859_2: CodePage = CodePage {
    lossy: false,
    upper: "\
        \u{80}\u{81}\u{82}\u{83}\u{84}\u{85}\u{86}\u{87}\u{88}\u{89}\u{8a}\u{8b}\u{8c}\u{8d}\u{8e}\u{8f}\u{90}\u{91}\u{92}\u{93}\u{94}\u{95}\u{96}\u{97}\u{98}\u{99}\u{9a}\u{9b}\u{9c}\u{9d}\u{9e}\u{9f}\
        \u{a0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{ad}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žż\
        ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢß\
        ŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙",
};

/// Latin 1.
pub(super) static LATIN_1: CodePage = CodePage {
    lossy: false,
    upper: "\
        \u{80}\u{81}\u{82}\u{83}\u{84}\u{85}\u{86}\u{87}\u{88}\u{89}\u{8a}\u{8b}\u{8c}\u{8d}\u{8e}\u{8f}\u{90}\u{91}\u{92}\u{93}\u{94}\u{95}\u{96}\u{97}\u{98}\u{99}\u{9a}\u{9b}\u{9c}\u{9d}\u{9e}\u{9f}\
        \u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
        ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞß\
        àáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ",
};

/// Mac Roman.
pub(super) static MAC_ROMAN: CodePage = CodePage {
    lossy: false,
    upper: "\
        ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü\
        †°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø\
        ¿¡¬√ƒ≈∆«»…\u{a0}ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ\
        ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{f8ff}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ",
};

/// Windows 1250.
pub(super) static WINDOWS_1250: CodePage = CodePage {
    lossy: true,
    upper: "\
        €\u{81}‚\u{83}„…†‡\u{88}‰Š‹ŚŤŽŹ\u{90}‘’“”•–—\u{98}™š›śťžź\
        \u{a0}ˇ˘Ł¤Ą¦§¨©Ş«¬\u{ad}®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľż\
        ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢß\
        ŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙",
};

/// Windows 1251.
pub(super) static WINDOWS_1251: CodePage = CodePage {
    lossy: true,
    upper: "\
        ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\u{98}™љ›њќћџ\
        \u{a0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{ad}®Ї°±Ііґµ¶·ё№є»јЅѕї\
        АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ\
        абвгдежзийклмнопрстуфхцчшщъыьэюя",
};

/// Windows 1252.
pub(super) static WINDOWS_1252: CodePage = CodePage {
    lossy: true,
    upper: "\
        €\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ\
        \u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
        ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞß\
        àáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ",
};

/// Windows 1253.
pub(super) static WINDOWS_1253: CodePage = CodePage {
    lossy: true,
    upper: "\
        €\u{81}‚ƒ„…†‡\u{88}‰\u{8a}‹\u{8c}\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}\u{9d}\u{9e}\u{9f}\
        \u{a0}΅Ά£¤¥¦§¨©ª«¬\u{ad}®―°±²³΄µ¶·ΈΉΊ»Ό½ΎΏ\
        ΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡÒΣΤΥΦΧΨΩΪΫάέήί\
        ΰαβγδεζηθικλμνξοπρςστυφχψωϊϋόύώÿ",
};

/// Windows 1254.
pub(super) static WINDOWS_1254: CodePage = CodePage {
    lossy: true,
    upper: "\
        €\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}\u{9e}Ÿ\
        \u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
        ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞß\
        àáâãäåæçèéêëìíîïğñòóôõö÷øùúûüışÿ",
};

/// Windows 1257.
pub(super) static WINDOWS_1257: CodePage = CodePage {
    lossy: true,
    upper: "\
        €\u{81}‚\u{83}„…†‡\u{88}‰\u{8a}‹\u{8c}¨ˇ¸\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}¯˛\u{9f}\
        \u{a0}¡¢£¤¥¦§Ø©Ŗ«¬\u{ad}®Æ°±²³´µ¶·ø¹ŗ»¼½¾æ\
        ĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽß\
        ąįāćäåęēčéźėģķīļšńņóōõö÷ųłśūüżž˙",
};
