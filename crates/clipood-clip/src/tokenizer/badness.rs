//! Whether a text looks like mojibake: neighbours that hardly ever occur in writing, but do where UTF-8 was misread. The
//! classes of characters and the rules are those of `ftfy` 6.3.

use std::sync::LazyLock;

use regex::Regex;

/// Names and members of the classes of characters that occur in mojibake.
const CLASSES: [(&str, &str); 14] = [
    // May stand almost anywhere.
    ("common", "\u{A0}\u{AD}·´–—―…’"),
    ("c1", "\u{80}-\u{9F}"),
    // Hardly seen outside mojibake.
    ("bad", "¦¤¨¬¯¸ƒˆˇ˘˛˜†‡‰⌐◊\u{FFFD}ªº"),
    ("law", "¶§"),
    ("currency", "¢£¥₧€"),
    ("opening", "¡«¿©΄΅‘‚“„•‹\u{F8FF}"),
    ("closing", "®»˝”›™"),
    ("numeric", "²³¹±¼½¾×µ÷⁄∂∆∏∑√∞∩∫≈≠≡≤≥№"),
    // Accented letters that are also drawn into faces, beside odd characters.
    ("face", "Ò-ÖÙ-Üò-öø-üŐŌŪŲ°"),
    (
        "upper_accented",
        "À-ÑØÜÝĂĀĄĆČĎĐĘĚĒĖĞĢİĪĶĹĽŁĻŃŇŅŒŘŚŞŠŢŤŮŰŸŹŻŽҐ",
    ),
    ("lower_accented", "ßà-ñăąāćčďđęěēėğģįīķĺľłļœŕśşšťüźżžґﬁﬂ"),
    ("upper_plain", "ÞΑ-ΩΆΈΉΊΌΎΏΪΫЁ-Я"),
    ("lower_plain", "α-ωάέήίΰа-џ"),
    ("box", "│┌┐┘├┤┬┼═-╬▀▄█▌▐░▒▓"),
];

/// Sequences of which one makes a text bad; `{name}` stands for a class's members.
const RULES: [&str; 35] = [
    "[{c1}]",
    "[{bad}{lower_accented}{upper_accented}{box}{opening}{closing}{currency}{numeric}{law}][{bad}]",
    "[a-zA-Z][{lower_plain}{upper_plain}][{bad}]",
    "[{bad}][{lower_accented}{upper_accented}{box}{opening}{closing}{currency}{numeric}{law}]",
    "[{lower_accented}{lower_plain}{box}{closing}{currency}{numeric}][{upper_accented}]",
    "[{box}{closing}{currency}{numeric}][{lower_accented}]",
    "[{lower_accented}{box}{closing}][{currency}]",
    "{space}[{upper_accented}][{currency}]",
    "[{upper_accented}{box}][{numeric}{law}]",
    "[{lower_accented}{upper_accented}{box}{currency}{closing}][{opening}][{numeric}]",
    "[{lower_accented}{upper_accented}{currency}{numeric}{box}{law}][{closing}][{opening}]",
    "[{currency}{numeric}{box}][{opening}]",
    "[a-z][{upper_accented}][{opening}{currency}]",
    "[{box}][{face}]",
    "[{lower_accented}{upper_accented}{currency}{numeric}{opening}{closing}{law}][{box}]",
    "[{box}][{closing}]",
    r"[{lower_accented}{upper_accented}][{opening}{closing}][\p{L}\p{N}_]",
    // The ligature before anything but an unaccented letter.
    "[Œœ][^A-Za-z]",
    "[{upper_accented}]°",
    // Windows-1252 pairs that no rule above covers.
    "[ÂÃÎÐ][€œŠš¢£Ÿž\u{A0}\u{AD}®©°·»{opening}{closing}–—´]",
    "×[²³]",
    // Windows-1252 reading of Arabic: the characters are too common for one pair to tell.
    "(?:[ØÙ][{common}{currency}{bad}{numeric}{opening}ŸŠ®°µ»]){2}",
    // Windows-1252 reading of South Asian scripts.
    "à[²µ¹¼½¾]",
    // MacRoman.
    "√[±∂†≠®™´≤≥¥µø]",
    "≈[°¢]",
    "‚Ä[ìîïòôúùû†°¢π]",
    "‚[âó][àä°ê]",
    // Windows-1251 reading of general punctuation, of Latin-1 and Cyrillic, and of a second layer beside Latin letters.
    "вЂ",
    "[ВГРС][{c1}{bad}{opening}{closing}{currency}°µ][ВГРС]",
    "ГўВЂВ.[A-Za-z ]",
    // `à`, `á` and the no-break space in Windows-1252, also with the space made plain.
    "Ã[\u{A0}¡]|[a-z]{space}?[ÃÂ] |^[ÃÂ] ",
    // Â before a character that means itself.
    "[a-z.,?!{closing}]Â[ {opening}{closing}]",
    // Windows-1253 reading of general punctuation, and of Latin-1 and Greek.
    "β€[™\u{A0}Ά\u{AD}®°]",
    "[ΒΓΞΟ][{c1}{bad}{opening}{closing}{currency}°][ΒΓΞΟ]",
    // Windows-1257 reading of general punctuation.
    "ā€",
];

static BAD: LazyLock<Regex> = LazyLock::new(|| {
    // Python's white space also has the four ASCII separators.
    let mut pattern = RULES.join("|").replace("{space}", r"[\s\x1C-\x1F]");
    for (name, members) in CLASSES {
        pattern = pattern.replace(&format!("{{{name}}}"), members);
    }
    // The pattern is constant, and every test on text that is not ASCII runs it.
    Regex::new(&pattern).expect("constant pattern is valid")
});

/// Whether `text` holds a sequence that suggests mojibake.
pub(super) fn is_bad(text: &str) -> bool {
    BAD.is_match(text)
}
