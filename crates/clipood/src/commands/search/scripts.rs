//! Queries in a script that the tokenizer of CLIP hardly knows.

use clipood_clip::tokenizer::Tokenizer;

/// A note about a text most of whose letters the tokenizer splits into bytes: its vocabulary was made from English
/// texts, and so were the captions that most models saw.
pub fn note(text: &str) -> Option<String> {
    let letters: Vec<char> = text.chars().filter(|c| c.is_alphabetic()).collect();
    let foreign = letters.iter().filter(|c| !c.is_ascii()).count();
    if 2 * foreign <= letters.len() {
        return None;
    }
    let tokens = Tokenizer::new().encode(text).len();
    (4 * tokens >= 3 * letters.len()).then(|| {
        format!(
            "note: the tokenizer splits the {} letters of `{text}` into {tokens} pieces, because its vocabulary is English; \
             models that were trained on English captions hardly understand such a query: try it in English",
            letters.len()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_in_another_script_have_a_note() {
        for text in [
            "戴墨镜的狗",
            "собака в очках",
            "サングラスをかけた犬",
            "선글라스를 쓴 개",
        ] {
            let note = note(text).unwrap();
            assert!(note.contains(text) && note.contains("English"), "{note}");
        }
        for text in [
            "a dog with sunglasses",
            "un café à Orléans",
            "Hund mit Brille über Straße",
            "42",
            "🐶",
        ] {
            assert_eq!(note(text), None, "{text}");
        }
    }
}
