//! From a folder to a model that can be used.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use weft_models::checkpoint;
use weft_models::gpt::Gpt;
use weft_models::llama::Llama;
use weft_models::mamba::Mamba;
use weft_models::mamba2::Mamba2;
use weft_models::recurrent_lm::RecurrentLm;
use weft_models::rnn_encoder_decoder::RnnEncoderDecoder;
use weft_models::rwkv4::Rwkv4;
use weft_models::rwkv7::Rwkv7;
use weft_models::transformer::Transformer;
use weft_models::{Architecture, CheckpointError};
use weft_text::Tokenizer;
use weft_train::{TrainError, find_folder, verify_model};

use super::{Continues, TextModel, Translates, TranslationModel, size};
use crate::error::{Error, Result};
use crate::files::shell;

/// The tokenizer of both sides, or of the target.
const TOKENIZER_FILE: &str = "tokenizer.json";
/// The source's tokenizer, where it is another.
const SOURCE_TOKENIZER_FILE: &str = "source_tokenizer.json";
/// The model that a run leaves, in the run's folder.
const MODEL_FOLDER: &str = "model";

/// A model of one of the two kinds.
pub(crate) enum Model {
    Translator(TranslationModel),
    LanguageModel(TextModel),
}

/// The folder of the model that `path` names: itself, or the model in a run's folder.
///
/// # Errors
/// A path that is neither.
pub(crate) fn folder_of(path: &Path) -> Result<PathBuf> {
    for folder in [find_folder(path), find_folder(&path.join(MODEL_FOLDER))] {
        if holds_config(&folder)? {
            return Ok(folder);
        }
    }
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| Error::file("open the model", path, &error))?;
    let error = if metadata.is_file() {
        Error::new(format!("{shown} is a file, not a model's folder"))
    } else if path.join("checkpoints").is_dir() {
        return Err(Error::new(format!("{shown} is a run that has not left a model yet")).hint(format!(
            "go on with `weft train --resume {}`, or name one of the folders in {}",
            shell(path),
            path.join("checkpoints").display()
        )));
    } else {
        Error::new(format!("{shown} holds no model: there is no {} in it", checkpoint::CONFIG_FILE))
    };
    Err(error
        .hint("a model is a folder with config.json, model.safetensors and tokenizer.json, or a run of `weft train`"))
}

fn holds_config(folder: &Path) -> Result<bool> {
    use std::io::ErrorKind;
    let path = folder.join(checkpoint::CONFIG_FILE);
    match std::fs::metadata(&path) {
        Ok(metadata) => Ok(metadata.is_file()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(Error::file("read", &path, &error)),
    }
}

/// Opens the model of a folder or a run.
///
/// # Errors
/// A folder without a model, a damaged model, an architecture that we do not know, or a tokenizer that is not the
/// model's.
pub(crate) fn open(path: &Path, device: &Device) -> Result<Model> {
    let folder = folder_of(path)?;
    let found = checkpoint::model_type(&folder)?;
    verify_model(&folder).map_err(not_as_saved)?;
    match found.as_str() {
        Transformer::MODEL_TYPE => {
            let config = checkpoint::load_config::<Transformer>(&folder)?;
            size::check(&folder, size::of_transformer(&config))?;
            let model: Transformer = checkpoint::load(&folder, device)?;
            let config = model.config();
            let sizes = (config.vocab_size, config.target_vocab_size());
            let eos = config.eos_token_id;
            // Keys and values of each layer.
            let cache_width = 2 * config.num_decoder_layers * config.hidden_size;
            translator(&folder, Box::new(model.for_decoding()), sizes, eos, cache_width)
        }
        RnnEncoderDecoder::MODEL_TYPE => {
            let config = checkpoint::load_config::<RnnEncoderDecoder>(&folder)?;
            size::check(&folder, size::of_rnn_encoder_decoder(&config))?;
            let model: RnnEncoderDecoder = checkpoint::load(&folder, device)?;
            let config = model.config();
            let (sizes, eos) = ((config.vocab_size, config.decoder_vocab_size), config.eos_token_id);
            translator(&folder, Box::new(model.for_decoding()), sizes, eos, 0)
        }
        Gpt::MODEL_TYPE => {
            let config = checkpoint::load_config::<Gpt>(&folder)?;
            size::check(&folder, size::of_gpt(&config))?;
            let model: Gpt = checkpoint::load(&folder, device)?;
            let size = model.config().vocab_size;
            language_model(&folder, Box::new(model.for_decoding()), size)
        }
        Mamba::MODEL_TYPE => {
            let config = checkpoint::load_config::<Mamba>(&folder)?;
            size::check(&folder, size::of_mamba(&config))?;
            let model: Mamba = checkpoint::load(&folder, device)?;
            let size = model.config().vocab_size;
            language_model(&folder, Box::new(model.for_decoding()), size)
        }
        Rwkv4::MODEL_TYPE => {
            let config = checkpoint::load_config::<Rwkv4>(&folder)?;
            size::check(&folder, size::of_rwkv4(&config))?;
            let model: Rwkv4 = checkpoint::load(&folder, device)?;
            let size = model.config().vocab_size;
            language_model(&folder, Box::new(model.for_decoding()), size)
        }
        Llama::MODEL_TYPE => {
            let config = checkpoint::load_config::<Llama>(&folder)?;
            size::check(&folder, size::of_llama(&config))?;
            let model: Llama = checkpoint::load(&folder, device)?;
            let size = model.config().vocab_size;
            language_model(&folder, Box::new(model.for_decoding()), size)
        }
        Mamba2::MODEL_TYPE => {
            let config = checkpoint::load_config::<Mamba2>(&folder)?;
            size::check(&folder, size::of_mamba2(&config))?;
            let model: Mamba2 = checkpoint::load(&folder, device)?;
            let size = model.config().vocab_size;
            language_model(&folder, Box::new(model.for_decoding()), size)
        }
        Rwkv7::MODEL_TYPE => {
            let config = checkpoint::load_config::<Rwkv7>(&folder)?;
            size::check(&folder, size::of_rwkv7(&config))?;
            let model: Rwkv7 = checkpoint::load(&folder, device)?;
            let size = model.config().vocab_size;
            language_model(&folder, Box::new(model.for_decoding()), size)
        }
        RecurrentLm::MODEL_TYPE => {
            let config = checkpoint::load_config::<RecurrentLm>(&folder)?;
            size::check(&folder, size::of_recurrent_lm(&config))?;
            let model: RecurrentLm = checkpoint::load(&folder, device)?;
            let size = model.config().vocab_size;
            language_model(&folder, Box::new(model.for_decoding()), size)
        }
        _ => {
            let wanted = vec![
                Transformer::MODEL_TYPE,
                RnnEncoderDecoder::MODEL_TYPE,
                Gpt::MODEL_TYPE,
                RecurrentLm::MODEL_TYPE,
                Mamba::MODEL_TYPE,
                Rwkv4::MODEL_TYPE,
                Llama::MODEL_TYPE,
                Mamba2::MODEL_TYPE,
                Rwkv7::MODEL_TYPE,
            ];
            let path = folder.join(checkpoint::CONFIG_FILE);
            Err(CheckpointError::ModelType { path, found, wanted }.into())
        }
    }
}

/// Opens a translator.
///
/// # Errors
/// As [`open`], and a language model.
pub(crate) fn open_translator(path: &Path, device: &Device) -> Result<TranslationModel> {
    match open(path, device)? {
        Model::Translator(model) => Ok(model),
        Model::LanguageModel(_) => Err(Error::new(format!("{} is a language model, not a translator", path.display()))
            .hint("`weft generate` continues a text with it, `weft evaluate MODEL --text FILE` measures it")),
    }
}

/// Opens a language model.
///
/// # Errors
/// As [`open`], and a translator.
pub(crate) fn open_language_model(path: &Path, device: &Device) -> Result<TextModel> {
    match open(path, device)? {
        Model::LanguageModel(model) => Ok(model),
        Model::Translator(_) => Err(Error::new(format!("{} is a translator, not a language model", path.display()))
            .hint(
                "`weft translate` translates with it, `weft evaluate MODEL --source FILE --reference FILE` measures it",
            )),
    }
}

fn translator(
    folder: &Path,
    model: Box<dyn Translates>,
    sizes: (usize, usize),
    eos: u32,
    cache_width: usize,
) -> Result<Model> {
    let path = folder.join(TOKENIZER_FILE);
    let target = tokenizer(&path, sizes.1)?;
    if target.eos_id() != eos {
        return Err(not_its_own(&path, format!("its end token is {}, the model's is {eos}", target.eos_id())));
    }
    let path = folder.join(SOURCE_TOKENIZER_FILE);
    let source = if path.exists() { tokenizer(&path, sizes.0)? } else { target.clone() };
    Ok(Model::Translator(TranslationModel { model, source, target, cache_width }))
}

fn language_model(folder: &Path, model: Box<dyn Continues>, size: usize) -> Result<Model> {
    let tokenizer = tokenizer(&folder.join(TOKENIZER_FILE), size)?;
    Ok(Model::LanguageModel(TextModel { model, tokenizer }))
}

/// Loads the tokenizer of a model with `vocab_size` entries.
fn tokenizer(path: &Path, vocab_size: usize) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::load(path)?;
    // Some projects fill the table up to a round number; a larger vocabulary cannot be the model's.
    if tokenizer.vocab_size() > vocab_size {
        let found = format!("it has {} tokens, the model {vocab_size}", tokenizer.vocab_size());
        return Err(not_its_own(path, found));
    }
    Ok(tokenizer)
}

/// A file that is not the one that its manifest lists.
fn not_as_saved(error: TrainError) -> Error {
    let is_tokenizer =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(TOKENIZER_FILE));
    match &error {
        TrainError::Damaged { path, problem } if is_tokenizer(path) => not_its_own(path, problem.clone()),
        TrainError::Damaged { .. } => Error::of(&error, None).hint(
            "the file is damaged or was changed: copy the model again, or remove manifest.json if you changed it on purpose",
        ),
        _ => error.into(),
    }
}

fn not_its_own(path: &Path, why: String) -> Error {
    Error::new(format!("{} is not this model's tokenizer: {why}", path.display()))
        .hint("copy the tokenizer from where the model came from: a model is of no use with another")
}
