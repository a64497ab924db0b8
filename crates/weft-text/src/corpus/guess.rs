//! Which format a corpus has, and whether it is pairs or text, from its paths and first line.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::input::Input;
use super::lines::LineReader;
use super::parallel::{ParallelFiles, next_record, string_fields};
use super::text::TextCorpus;
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

impl TextCorpus {
    /// Whether the paths look like text, not like pairs: a folder, three paths or more, JSON records without
    /// `translation` that have a string in the text's field, or one file in none of the formats of pairs. Two other
    /// files are line-aligned.
    ///
    /// # Errors
    /// Records that hold text, in a file whose name does not make it JSON lines.
    pub fn looks_like_text(&self) -> Result<bool, TextError> {
        let paths = &self.paths;
        if let Some(path) = paths.iter().find(|path| !self.is_json_lines(path) && self.begins_with_text(path)) {
            let problem = "its records hold text, but its name does not end in .jsonl or .ndjson";
            return Err(TextError::UnknownFormat { paths: PathList(vec![path.clone()]), problem });
        }
        Ok(!paths.is_empty()
            && (paths.iter().any(|path| path.is_dir())
                || paths.iter().all(|path| self.begins_with_text(path))
                || matches!(ParallelFiles::guess(paths, None), Err(TextError::UnknownFormat { .. }))))
    }

    /// Whether a file begins with a JSON record that holds text; what cannot be read does not.
    fn begins_with_text(&self, path: &Path) -> bool {
        let first = LineReader::open(path).and_then(|mut lines| next_record(&mut lines));
        first.ok().flatten().is_some_and(|record| {
            record.get("translation").is_none() && record.get(&self.json_field).is_some_and(Value::is_string)
        })
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
    two_languages(path, string_fields(record.get("translation").unwrap_or(&record)))
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
