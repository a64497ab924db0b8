use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::TextError;

const KINDS: [TokenizerKind; 4] = TokenizerKind::ALL;

/// Sentences in several scripts, of our own making, with enough repetition to learn from.
const SENTENCES: [&str; 10] = [
    "The weaver's loom stands by the window, and the weaver sings.",
    "A weaver weaves; weaving is what weavers do, isn't it?",
    "Die Weberin sitzt am Webstuhl und webt weiße Wolle für Brüder.",
    "Großmütter erzählen größere Geschichten über Grüße und Füße.",
    "Ткач ткёт ткань, и ткань растёт под руками ткача.",
    "織り手は布を織り、布は織り手の手の下で育つ。",
    "for (let i = 0; i < 10; i++) { items.push(i * 2); }",
    "It cost 1,234.50 on 2024-07-31 at 09:30.",
    "le tisserand tisse; l'été, il tisse dehors près de l'eau.",
    "🦉 said: 👩‍👩‍👧‍👦 live here ❤️ and here ❤️.",
];

fn texts() -> impl Iterator<Item = Result<String, TextError>> {
    (0..30).flat_map(|round| {
        SENTENCES.iter().map(move |sentence| match round % 3 {
            0 => Ok((*sentence).to_owned()),
            1 => Ok(sentence.to_lowercase()),
            _ => Ok(format!(" {sentence}\n\t")),
        })
    })
}

fn train(kind: TokenizerKind) -> Tokenizer {
    Tokenizer::train(kind, 700, texts()).unwrap()
}

static TRAINED: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| KINDS.map(train).to_vec());

/// Texts that tokenizers like to change.
const ODD: [&str; 28] = [
    "",
    " ",
    "  leading",
    "trailing   ",
    "in  the   middle",
    "\ttabs\t\tand\nlines\r\n\r\n end\n",
    "no\u{a0}break\u{2009}thin\u{3000}wide\u{200b}zero\u{feff}mark",
    "before , punctuation ! and ' quotes ' n't 's I 'm",
    "don't we’ll they'd l'eau 'quoted' ''double''",
    "fn main() { println!(\"{:?}\", a[0] += 1); } // §",
    "\\n \\t \\u0041 <0x41> <0xE2><0x82><0xAC> <0x0A>",
    "</s>",
    "<s>a</s> <pad><pad> <unk>unk<|endoftext|>",
    " </s> ",
    "<</s>>",
    "👩‍👩‍👧‍👦👨🏽‍🚀🏴󠁧󠁢󠁳󠁣󠁴󠁿❤️❤︎ e\u{301}e\u{301}\u{323} a\u{30a}",
    "\u{301}starts with a mark \u{301} alone",
    "नमस्ते दुनिया שָׁלוֹם مَرْحَبًا สวัสดี",
    "漢字かな交じり文、𠮷野家。",
    "ĠĊÃ¤ÂŁ Ã© byte-level look-alikes",
    "▁ meta ▁space ▁▁",
    "\u{0}\u{1}\u{7f}\u{85}\u{2028}\u{2029}",
    "\u{10ffff}\u{e000}\u{fffd}\u{d7ff}",
    "1234567890 ١٢٣ ½ Ⅷ",
    "ﬁ ﬂ Å Å ﷺ ①",
    "İstanbul ΣΊΣΥΦΟΣ ς ß ẞ",
    "##wordpiece @@bpe </w> Ġ",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

fn assert_lossless(tokenizer: &Tokenizer, text: &str) {
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    assert!(ids.iter().all(|&id| id > 3), "special token in {text:?}");
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    assert_eq!(tokenizer.byte_count(&ids).unwrap(), text.len());
    let mut stream = tokenizer.text_stream();
    let mut streamed: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert!(!streamed.contains('\u{fffd}') || text.contains('\u{fffd}'));
    streamed.push_str(&stream.finish().unwrap());
    assert_eq!(streamed, text);
    // The `tokenizers` crate itself decodes to the same text.
    assert_eq!(tokenizer.inner.tokenizer.decode(&ids, true).unwrap(), text);
}

#[test]
fn odd_texts_survive() {
    for tokenizer in TRAINED.iter() {
        ODD.iter().chain(&SENTENCES).for_each(|text| assert_lossless(tokenizer, text));
    }
}

/// Text out of anything, with pieces that tokenizers treat specially and trained-on words more likely.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => any::<String>(),
        2 => prop::sample::select(ODD.to_vec()).prop_map(str::to_owned),
        2 => prop::sample::select(SENTENCES.to_vec()).prop_map(str::to_owned),
        2 => "[ \t\r\n\u{a0}\u{2003}\u{200d}\u{fe0f}]{1,4}",
        1 => "(</?s>|<pad>|<unk>|<0x[0-9A-F]{2}>|[<>/s0x'’]){1,4}",
        1 => "\\PC{1,8}",
        1 => "[\\p{M}\\p{So}]{1,4}",
        2 => "[a-z]{1,8} ",
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn decoding_an_encoding_returns_any_text(text in any_text()) {
        TRAINED.iter().for_each(|tokenizer| assert_lossless(tokenizer, &text));
    }

    #[test]
    fn streams_join_to_the_decoded_text(ids in prop::collection::vec(0u32..720, 0..40)) {
        for tokenizer in TRAINED.iter() {
            let mut stream = tokenizer.text_stream();
            let mut streamed: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            streamed.push_str(&stream.finish().unwrap());
            prop_assert_eq!(streamed, tokenizer.decode(&ids).unwrap());
        }
    }
}

#[test]
fn special_tokens_have_fixed_ids_and_are_not_decoded() {
    for tokenizer in TRAINED.iter() {
        assert_eq!(tokenizer.special_tokens(), SpecialTokens { pad: 0, unk: 1, bos: 2, eos: 3 });
        let mut ids = vec![2];
        ids.extend(tokenizer.encode("a weaver").unwrap());
        ids.extend([3, 0, 0, 1_000_000]);
        assert_eq!(tokenizer.decode(&ids).unwrap(), "a weaver");
        let shown = [0, 1, 2, 3].map(|id| tokenizer.token_text(id));
        assert_eq!(shown, ["<pad>", "<unk>", "<s>", "</s>"]);
        assert_eq!(tokenizer.token_text(1_000_000), "<id 1000000>");
    }
}

#[test]
fn training_repeats_to_the_byte_on_any_number_of_threads() {
    for (kind, first) in KINDS.into_iter().zip(TRAINED.iter()) {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let again = pool.install(|| train(kind));
            assert_eq!(again.to_json(), first.to_json(), "{kind:?} on {threads} threads");
        }
    }
    // Maps are seeded anew in every process, so a hash that was recorded in another one says more.
    assert_eq!(TRAINED.iter().map(|tokenizer| &tokenizer.hash()[..16]).collect::<Vec<_>>(), RECORDED_HASHES);
}

const RECORDED_HASHES: [&str; 4] = ["d80cda2544a493f0", "238046b91ab8466c", "05583fc1a8338f0f", "0523a7ce271c4f55"];

#[test]
fn saving_and_loading_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    for tokenizer in TRAINED.iter() {
        let path = folder.path().join("tokenizer.json");
        tokenizer.save(&path).unwrap();
        let loaded = Tokenizer::load(&path).unwrap();
        assert_eq!(&loaded, tokenizer);
        assert_eq!(loaded.hash(), crate::hash_file(&path).unwrap());
        assert_eq!(loaded.special_tokens(), tokenizer.special_tokens());
        for text in ODD.iter().chain(&SENTENCES) {
            assert_eq!(loaded.encode(text).unwrap(), tokenizer.encode(text).unwrap());
            assert_lossless(&loaded, text);
        }
    }
    let hashes: std::collections::BTreeSet<&str> = TRAINED.iter().map(Tokenizer::hash).collect();
    assert_eq!(hashes.len(), KINDS.len());
}

#[test]
fn tokens_compress_what_was_trained_on() {
    let count = |tokenizer: &Tokenizer| -> usize {
        SENTENCES.iter().map(|sentence| tokenizer.encode(sentence).unwrap().len()).sum()
    };
    let [bpe, unigram, byte_bpe, characters] = [0, 1, 2, 3].map(|index| count(&TRAINED[index]));
    let all_characters: usize = SENTENCES.iter().map(|sentence| sentence.chars().count()).sum();
    assert_eq!(characters, all_characters);
    assert!(bpe * 2 < characters, "{bpe} of {characters}");
    assert!(unigram * 2 < characters, "{unigram} of {characters}");
    assert!(byte_bpe * 2 < characters, "{byte_bpe} of {characters}");
    assert!(TRAINED[..3].iter().all(|tokenizer| tokenizer.vocab_size() <= 700));
}

#[test]
fn merges_are_the_most_frequent_pairs_in_order() {
    // Counts: ab 6, bc 4 (of which 4 behind a), then abc 4; "z" occurs once.
    let texts = ["abc", "abc", "abc", "abc", "ab", "ab", "z"].map(|text| Ok(text.to_owned()));
    let tokenizer = Tokenizer::train(TokenizerKind::Bpe, 1000, texts.into_iter()).unwrap();
    let learnt: Vec<String> = (260..tokenizer.vocab_size() as u32).map(|id| tokenizer.token_text(id)).collect();
    assert_eq!(learnt, ["a", "b", "c", "z", "ab", "abc"]);
    assert_eq!(tokenizer.encode("abcab").unwrap(), [265, 264]);
}

#[test]
fn unigram_pieces_go_to_what_is_frequent() {
    // Ten words, the n-th one 2^n times, and room for five pieces beside the characters.
    let words = ["bind", "cast", "hold", "land", "sight", "stand", "turn", "wind", "weave", "loom"];
    let texts = words.iter().enumerate().map(|(rank, word)| Ok(format!(" {word}").repeat(1 << rank)));
    let characters = words.concat().chars().collect::<std::collections::BTreeSet<_>>().len() + 1;
    let tokenizer = Tokenizer::train(TokenizerKind::Unigram, 260 + characters + 5, texts).unwrap();
    assert_eq!(tokenizer.vocab_size(), 260 + characters + 5);
    let count = |word: &str| tokenizer.encode(&format!(" {word}")).unwrap().len();
    assert_eq!(words[6..].iter().map(|word| count(word)).collect::<Vec<_>>(), [1; 4]);
    assert!(count("bind") > 1 && count("cast") > 1);
}

#[test]
fn rare_characters_of_large_alphabets_become_bytes() {
    // 3,000 ideographs, the first ones frequent: far more than half of the room of 1,000.
    let text: String = (0..3000u32)
        .flat_map(|i| std::iter::repeat_n(char::from_u32(0x4e00 + i).unwrap(), if i < 100 { 500 } else { 1 }))
        .collect();
    for kind in [TokenizerKind::Bpe, TokenizerKind::Unigram, TokenizerKind::Characters] {
        let tokenizer = Tokenizer::train(kind, 1000, std::iter::once(Ok(text.clone()))).unwrap();
        assert!(tokenizer.vocab_size() <= 1000, "{kind:?}: {}", tokenizer.vocab_size());
        assert_eq!(tokenizer.encode("一").unwrap().len(), 1);
        assert_eq!(tokenizer.encode("\u{59b7}").unwrap().len(), 3);
        assert_lossless(&tokenizer, &text);
    }
}

#[test]
fn impossible_trainings_are_errors() {
    for kind in KINDS {
        let none = Tokenizer::train(kind, 1000, std::iter::empty()).unwrap_err();
        assert!(matches!(none, TextError::NoTrainingText), "{none:?}");
        let small = Tokenizer::train(kind, 260, texts()).unwrap_err();
        assert!(matches!(small, TextError::VocabularyTooSmall { wanted: 260, minimum: 261 }), "{small:?}");
        assert!(small.hint().unwrap().contains("261"));
        let broken = [Ok("a".to_owned()), Err(TextError::EmptyFile { path: "x".into() })];
        assert!(matches!(Tokenizer::train(kind, 1000, broken.into_iter()), Err(TextError::EmptyFile { .. })));
        let tiny = Tokenizer::train(kind, 261, texts()).unwrap();
        SENTENCES.iter().for_each(|text| assert_lossless(&tiny, text));
    }
}

/// A byte-level tokenizer as GPT-2's, in miniature: one special token, which ends and begins and pads.
fn like_gpt2() -> String {
    let mut vocabulary: serde_json::Map<String, serde_json::Value> =
        bytes::byte_characters().iter().zip(0..).map(|(character, id)| (character.to_string(), id.into())).collect();
    vocabulary.insert("Ġa".to_owned(), 256.into());
    vocabulary.insert("<|endoftext|>".to_owned(), 257.into());
    serde_json::json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 257, "pad_type_id": 0, "pad_token": "<|endoftext|>"},
        "added_tokens": [{"id": 257, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true},
        "model": {"dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": false, "vocab": vocabulary, "merges": ["Ġ a"]}
    })
    .to_string()
}

#[test]
fn a_tokenizer_like_gpt2s_is_taken_whole() {
    let tokenizer = Tokenizer::from_json(like_gpt2()).unwrap();
    assert_eq!(tokenizer.special_tokens(), SpecialTokens { pad: 257, unk: 257, bos: 257, eos: 257 });
    assert_eq!(tokenizer.vocab_size(), 258);
    // Neither its truncation nor its padding holds here.
    let text = "a long text  with <|endoftext|> in it 🦉";
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    assert!(!ids.contains(&257));
    assert_eq!(tokenizer.token_text(256), "▁a");
    assert_eq!(Tokenizer::from_json(tokenizer.to_json()).unwrap().hash(), tokenizer.hash());
}

/// A tokenizer whose decoder looks at the place of a token in the text: no fixed bytes.
fn like_llama() -> String {
    let mut vocabulary: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    vocabulary.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    vocabulary.extend(["▁", "a", "b", "▁a"].map(str::to_owned));
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        vocabulary.into_iter().zip(0..).map(|(token, id)| (token, id.into())).collect();
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 2, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocabulary, "merges": [["▁", "a"]]}
    })
    .to_string()
}

#[test]
fn streams_of_tokenizers_without_fixed_bytes_keep_spaces_and_characters() {
    let tokenizer = Tokenizer::from_json(like_llama()).unwrap();
    assert!(tokenizer.inner.bytes.is_none());
    assert_eq!(tokenizer.special_tokens(), SpecialTokens { pad: 2, unk: 0, bos: 1, eos: 2 });
    let text = "a b ab  a 🦉 a🦉🦉 b a a a a b b b b 漢字 a b a";
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    let mut stream = tokenizer.text_stream();
    let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')));
    assert_eq!(pieces.concat() + &stream.finish().unwrap(), text);
    assert_eq!(tokenizer.byte_count(&ids).unwrap(), text.len());
}

fn refusal(json: &str) -> String {
    let error = Tokenizer::from_json(json).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {cause}")
}

#[test]
fn unusable_tokenizers_are_refused_with_reasons() {
    let gpt2 = like_gpt2();
    assert!(refusal(&gpt2[..gpt2.len() / 2]).starts_with("tokenizer.json is not a usable tokenizer: EOF"));
    assert!(refusal("[]").starts_with("tokenizer.json is not a usable tokenizer: "));
    let nameless = gpt2.replace("<|endoftext|>", "<|stop|>");
    assert!(refusal(&nameless).starts_with("the tokenizer has no token for the end of a sequence; looked for `</s>`"));
    assert!(refusal(&gpt2.replace("Ġ a", "Ġ b")).contains("merge 0 joins \"Ġ\" and \"b\""));
    assert!(refusal(&gpt2.replace("Ġ a", "Ġ")).contains("merge 0 is \"Ġ\", wanted two tokens"));
    assert!(refusal(&gpt2.replace("257", "4294967295")).contains("has id 4294967295"));
    assert!(refusal(&gpt2.replace("\"vocab\"", "\"vocabulary\"")).starts_with("tokenizer.json is not a usable"));
    let missing = Tokenizer::load("/no/such/tokenizer.json").unwrap_err();
    assert_eq!(missing.to_string(), "cannot open /no/such/tokenizer.json");
}

#[test]
fn tokens_are_readable() {
    let characters = &TRAINED[3];
    let shown: Vec<String> =
        characters.encode("a \n\té\u{200d}≠").unwrap().into_iter().map(|id| characters.token_text(id)).collect();
    assert_eq!(shown, ["a", "▁", "↵", "⇥", "é", "\\u{200d}", "<0xE2>", "<0x89>", "<0xA0>"]);
}

#[test]
fn kinds_are_named_alike_everywhere() {
    for kind in KINDS {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
    }
}
