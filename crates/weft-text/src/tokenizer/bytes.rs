//! The bytes that a token stands for.

use serde_json::json;
use tokenizers::Tokenizer as Inner;

/// The character that stands for each byte in byte-level vocabularies (Radford et al., GPT-2): the visible characters
/// of Latin-1 for themselves, and the characters from U+0100 on for the other bytes in order.
pub(super) fn byte_characters() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        if matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
            return char::from(byte);
        }
        next += 1;
        char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
    })
}

/// The bytes of each token, by id; nothing for special tokens and unused ids.
pub(super) type TokenBytes = Vec<Option<Box<[u8]>>>;

/// The bytes of all tokens, if the tokenizer's decoder puts tokens together byte for byte: our own and byte-level
/// ones. Others (with word prefixes or stripped spaces) have no fixed bytes for a token.
pub(super) fn token_bytes(inner: &Inner, size: usize) -> Option<TokenBytes> {
    let decoder = serde_json::to_value(inner.get_decoder()?).ok()?;
    let byte_level = decoder["type"] == "ByteLevel";
    let byte_fallback =
        decoder == json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]});
    if !byte_level && !byte_fallback {
        return None;
    }
    let characters = byte_characters();
    let byte_of = |character: char| characters.iter().position(|&one| one == character).map(|byte| byte as u8);
    let mut table = vec![None; size];
    for (token, id) in inner.get_vocab(true) {
        let bytes = if byte_level {
            // A token with any other character was added by hand and stands for itself.
            token.chars().map(byte_of).collect::<Option<Vec<u8>>>()
        } else {
            byte_token(&token).map(|byte| vec![byte])
        };
        table[id as usize] = Some(bytes.unwrap_or_else(|| token.into_bytes()).into_boxed_slice());
    }
    for (id, _) in inner.get_added_tokens_decoder().into_iter().filter(|(_, token)| token.special) {
        table[id as usize] = None;
    }
    Some(table)
}

/// The byte that a byte-fallback token such as `<0xE2>` stands for.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// A piece of text for people: spaces as `▁`, line ends and tabs as arrows, other invisible characters and stray
/// bytes escaped.
pub(super) fn readable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                ' ' => text.push('▁'),
                '\n' => text.push('↵'),
                '\t' => text.push('⇥'),
                '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{feff}' => {
                    text.extend(character.escape_unicode());
                }
                other if other.is_control() || other.is_whitespace() => text.extend(other.escape_unicode()),
                other => text.push(other),
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("<0x{byte:02X}>")));
    }
    text
}
