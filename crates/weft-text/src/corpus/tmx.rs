//! Translation Memory eXchange 1.4, as a stream of translation units.
//!
//! A unit (`tu`) holds a variant (`tuv`) for each language, and each variant a segment (`seg`). Inside a segment,
//! `hi` marks a stretch of text and is looked through; `bpt`, `ept`, `it`, `ph`, `ut` and `sub` hold formatting codes
//! of other programs and are left out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use quick_xml::Reader;
use quick_xml::errors::Error as XmlError;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};

use super::input::Input;
use super::parallel::Pair;
use super::skip::{SkipReason, SkipReport};
use crate::error::TextError;

/// Elements whose content is code, not text.
const CODE_ELEMENTS: [&str; 6] = ["bpt", "ept", "it", "ph", "ut", "sub"];

/// Languages that are remembered for an error message.
const MAX_LANGUAGES: usize = 40;

pub(super) struct TmxReader {
    reader: Reader<Input>,
    buffer: Vec<u8>,
    path: PathBuf,
    languages: [String; 2],
    found: BTreeSet<String>,
    units: usize,
    complete_units: usize,
    unit: Option<Unit>,
    open_elements: usize,
}

/// What is known of the unit that is being read.
#[derive(Default)]
struct Unit {
    line: usize,
    sides: [Option<String>; 2],
    /// Which sides the current variant is for.
    variant: Option<[bool; 2]>,
    segment: Option<String>,
    code_depth: usize,
}

impl TmxReader {
    pub(super) fn open(path: &Path, source_language: &str, target_language: &str) -> Result<Self, TextError> {
        Ok(Self {
            reader: Reader::from_reader(open_nonempty(path)?),
            buffer: Vec::new(),
            path: path.to_owned(),
            languages: [source_language.to_owned(), target_language.to_owned()],
            found: BTreeSet::new(),
            units: 0,
            complete_units: 0,
            unit: None,
            open_elements: 0,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        self.reader.get_ref().digest()
    }

    /// The next unit that has both languages; the others are counted as skipped.
    pub(super) fn next_pair(&mut self, skipped: &mut SkipReport) -> Result<Option<Pair>, TextError> {
        loop {
            let line = self.reader.get_ref().line();
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            let event = self.reader.read_event_into(&mut buffer);
            let event = event
                .map_err(|error| xml_error(&self.path, self.reader.get_ref(), self.reader.buffer_position(), error))?;
            let finished = matches!(event, Event::Eof);
            let unit = self.take_event(event, line)?;
            self.buffer = buffer;
            if finished {
                return self.finish().map(|()| None);
            }
            let Some(unit) = unit else { continue };
            self.units += 1;
            match unit.sides {
                [Some(source), Some(target)] => {
                    self.complete_units += 1;
                    return Ok(Some(Pair { source: one_line(&source), target: one_line(&target), line: unit.line }));
                }
                _ => skipped.add(SkipReason::MissingLanguage, &self.path, unit.line),
            }
        }
    }

    /// Follows one event; returns the unit that it ends.
    fn take_event(&mut self, event: Event<'_>, line: usize) -> Result<Option<Unit>, TextError> {
        match event {
            Event::Start(element) => {
                self.open_elements += 1;
                self.start(&element, line)?;
            }
            Event::End(element) => {
                self.open_elements = self.open_elements.saturating_sub(1);
                return Ok(self.end(element.name().into_inner()));
            }
            Event::Text(text) => self.push(&text.xml10_content()),
            Event::CData(text) => self.push(&text.xml10_content()),
            Event::GeneralRef(reference) => {
                let text = self.resolve(&reference, line)?;
                self.push(&text);
            }
            _ => {}
        }
        Ok(None)
    }

    fn start(&mut self, element: &BytesStart<'_>, line: usize) -> Result<(), TextError> {
        let name = element.name().into_inner();
        if name == "tu" {
            self.unit = Some(Unit { line, ..Unit::default() });
            return Ok(());
        }
        let Some(unit) = &mut self.unit else {
            return Ok(());
        };
        if name == "tuv" {
            let language = language_of(element).ok_or_else(|| TextError::Tmx {
                path: self.path.clone(),
                line,
                problem: "a <tuv> has no xml:lang attribute".to_owned(),
            })?;
            let matches = |wanted: &String| language_matches(wanted, &language);
            unit.variant = Some([matches(&self.languages[0]), matches(&self.languages[1])]);
            if self.found.len() < MAX_LANGUAGES {
                self.found.insert(language);
            }
        } else if name == "seg" && unit.variant.is_some() {
            unit.segment = Some(String::new());
        } else if unit.segment.is_some() && (unit.code_depth > 0 || CODE_ELEMENTS.contains(&name)) {
            unit.code_depth += 1;
        }
        Ok(())
    }

    fn end(&mut self, name: &str) -> Option<Unit> {
        let unit = self.unit.as_mut()?;
        match name {
            "tu" => return self.unit.take(),
            "tuv" => unit.variant = None,
            "seg" => {
                unit.code_depth = 0;
                if let (Some(segment), Some(wanted)) = (unit.segment.take(), unit.variant) {
                    for (side, _) in unit.sides.iter_mut().zip(wanted).filter(|(_, wanted)| *wanted) {
                        // The first variant of a language counts, so that `en` finds en-GB where it stands first.
                        side.get_or_insert_with(|| segment.clone());
                    }
                }
            }
            _ => unit.code_depth = unit.code_depth.saturating_sub(1),
        }
        None
    }

    fn push(&mut self, text: &str) {
        if let Some(Unit { segment: Some(segment), code_depth: 0, .. }) = &mut self.unit {
            segment.push_str(text);
        }
    }

    fn resolve(&self, reference: &BytesRef<'_>, line: usize) -> Result<String, TextError> {
        let unknown = || TextError::Tmx {
            path: self.path.clone(),
            line,
            problem: format!("unknown entity `&{};`", &**reference),
        };
        match reference.resolve_char_ref() {
            Ok(Some(character)) => Ok(character.to_string()),
            Ok(None) => resolve_predefined_entity(reference).map(str::to_owned).ok_or_else(unknown),
            Err(_) => Err(unknown()),
        }
    }

    fn finish(&self) -> Result<(), TextError> {
        let problem = |problem: &str| {
            Err(TextError::Tmx {
                path: self.path.clone(),
                line: self.reader.get_ref().line(),
                problem: problem.to_owned(),
            })
        };
        if self.open_elements > 0 {
            return problem("the file ends inside an element");
        }
        if self.units == 0 {
            return problem("the file has no <tu> element");
        }
        if self.complete_units == 0 {
            return Err(TextError::MissingLanguages {
                path: self.path.clone(),
                source_language: self.languages[0].clone(),
                target_language: self.languages[1].clone(),
                found: self.found.iter().cloned().collect(),
            });
        }
        Ok(())
    }
}

/// The source language that a TMX file's header names, and the languages of its first unit, in order.
pub(super) fn first_languages(path: &Path) -> Result<(Option<String>, Vec<String>), TextError> {
    let mut reader = Reader::from_reader(open_nonempty(path)?);
    let mut buffer = Vec::new();
    let mut header = None;
    let mut languages = Vec::new();
    loop {
        buffer.clear();
        let event = reader.read_event_into(&mut buffer);
        let event = event.map_err(|error| xml_error(path, reader.get_ref(), reader.buffer_position(), error))?;
        match event {
            Event::Start(element) | Event::Empty(element) => match element.name().into_inner() {
                // `*all*` means that every language may be the source.
                "header" => header = attribute(&element, "srclang").filter(|language| language != "*all*"),
                "tuv" => languages.extend(language_of(&element)),
                _ => {}
            },
            Event::End(element) if element.name().into_inner() == "tu" => {
                return Ok((header, languages));
            }
            Event::Eof => return Ok((header, languages)),
            _ => {}
        }
    }
}

/// Whether a file's language is the one asked for: the same tag, or one that goes on after it.
pub(super) fn language_matches(wanted: &str, found: &str) -> bool {
    let (wanted, found) = (wanted.as_bytes(), found.as_bytes());
    let goes_on = matches!(found.get(wanted.len()), None | Some(b'-' | b'_'));
    goes_on && found.len() >= wanted.len() && found[..wanted.len()].eq_ignore_ascii_case(wanted)
}

fn open_nonempty(path: &Path) -> Result<Input, TextError> {
    use std::io::BufRead;
    let mut input = Input::open(path)?;
    match input.fill_buf().map(<[u8]>::is_empty) {
        Ok(false) => Ok(input),
        Ok(true) => Err(TextError::EmptyFile { path: path.to_owned() }),
        Err(source) => Err(TextError::Read { path: path.to_owned(), line: 0, source }),
    }
}

fn language_of(element: &BytesStart<'_>) -> Option<String> {
    attribute(element, "xml:lang").or_else(|| attribute(element, "lang"))
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = element.try_get_attribute(name).ok().flatten()?;
    Some(attribute.value.trim().to_owned())
}

/// A segment that was broken into indented lines is one sentence: its line breaks read as single spaces.
fn one_line(segment: &str) -> String {
    if !segment.contains('\n') {
        return segment.to_owned();
    }
    let parts: Vec<&str> = segment.split('\n').map(str::trim).filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

fn xml_error(path: &Path, input: &Input, offset: u64, error: XmlError) -> TextError {
    let (path, line) = (path.to_owned(), input.line());
    match error {
        XmlError::Io(source) => TextError::Read { path, line, source: std::io::Error::new(source.kind(), source) },
        XmlError::Encoding(_) => TextError::InvalidUtf8 { path, line, offset },
        source => TextError::Xml { path, line, source },
    }
}
