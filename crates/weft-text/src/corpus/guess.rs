//! Which format a corpus has, from its paths and first line.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::input::Input;
use super::lines::LineReader;
use super::parallel::{ParallelFiles, next_record};
use super::tmx::first_languages;
use crate::error::{PathList, TextError};

impl ParallelFiles {
    /// Guesses the format: two paths are line-aligned files; one is TMX, JSON lines or TSV by how its content begins.
    ///
    /// `languages` (source, target) are needed only where a file names its languages and has more than two, or has
    /// them in an order that is not the wanted one.
    ///
    /// # Errors
    /// More than two paths or none, a file that cannot be read, content that looks like none of the formats, or
    /// languages that cannot be told.
    pub fn guess(paths: &[PathBuf], languages: Option<(&str, &str)>) -> Result<Self, TextError> {
        let unknown = |problem| TextError::UnknownFormat { paths: PathList(paths.to_vec()), problem };
        let path = match paths {
            [source, target] => {
                return Ok(Self::Lines { source: source.clone(), target: target.clone() });
            }
            [path] => path,
            _ => return Err(unknown("a corpus is one file or two")),
        };
        match first_visible_byte(path)? {
            Some(b'<') => {
                let (source_language, target_language) = tmx_languages(path, languages)?;
                Ok(Self::Tmx { path: path.clone(), source_language, target_language })
            }
            Some(b'{') => {
                let (source_language, target_language) = json_languages(path, languages)?;
                Ok(Self::JsonLines { path: path.clone(), source_language, target_language })
            }
            Some(b'[') => Err(unknown("it begins as a JSON array, which is not JSON lines")),
            Some(_) => {
                let mut lines = LineReader::open(path)?;
                if lines.advance()? && lines.text().contains('\t') {
                    Ok(Self::Tsv { path: path.clone() })
                } else {
                    Err(unknown("its first line has no tab, and it is neither JSON nor XML"))
                }
            }
            None => Err(TextError::EmptyFile { path: path.clone() }),
        }
    }
}

/// The first byte that is not white space, looked for in the first buffer only.
fn first_visible_byte(path: &Path) -> Result<Option<u8>, TextError> {
    let mut input = Input::open(path)?;
    let start = input.fill_buf().map_err(|source| TextError::Read { path: path.to_owned(), line: 0, source })?;
    let visible = start.iter().find(|byte| !byte.is_ascii_whitespace());
    Ok(visible.or(start.first()).copied())
}

fn owned((source, target): (&str, &str)) -> (String, String) {
    (source.to_owned(), target.to_owned())
}

fn json_languages(path: &Path, languages: Option<(&str, &str)>) -> Result<(String, String), TextError> {
    if let Some(languages) = languages {
        return Ok(owned(languages));
    }
    let mut lines = LineReader::open(path)?;
    let record = next_record(&mut lines)?.unwrap_or(Value::Null);
    let fields = record.get("translation").unwrap_or(&record).as_object();
    let found: Vec<String> = fields
        .map(|fields| fields.iter().filter(|(_, value)| value.is_string()).map(|(key, _)| key.clone()).collect())
        .unwrap_or_default();
    two_languages(path, found)
}

fn tmx_languages(path: &Path, languages: Option<(&str, &str)>) -> Result<(String, String), TextError> {
    if let Some(languages) = languages {
        return Ok(owned(languages));
    }
    let (source, mut found) = first_languages(path)?;
    // Where the header names the source language, the other one is the target.
    if let Some(position) = source.and_then(|source| found.iter().position(|one| one.eq_ignore_ascii_case(&source))) {
        found.swap(0, position);
    }
    two_languages(path, found)
}

fn two_languages(path: &Path, found: Vec<String>) -> Result<(String, String), TextError> {
    match <[String; 2]>::try_from(found) {
        Ok([source, target]) => Ok((source, target)),
        Err(found) => Err(TextError::UnknownLanguages { path: path.to_owned(), found }),
    }
}
