//! Running the binary, and models that all tests may read.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// What a run of the binary left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The same, checked to have worked.
    pub(crate) fn worked(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// Checks that the run failed as errors should: once, with what it is about and a hint, and without a panic.
    pub(crate) fn failed(&self, wanted: &[&str]) {
        assert_eq!(self.code, Some(1), "{self:#?}");
        let errors = self.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        let hints = self.stderr.lines().filter(|line| line.starts_with("hint: ")).count();
        assert_eq!((errors, hints), (1, 1), "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        for part in wanted {
            assert!(self.stderr.contains(part), "{part:?} is not in {self:#?}");
        }
    }
}

/// The binary, ready to run in `folder` as outside of a terminal.
pub(crate) fn weft(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.current_dir(folder).args(args).env_remove("NO_COLOR").env_remove("RUST_BACKTRACE");
    command.stdin(Stdio::null());
    command
}

/// Runs the binary.
pub(crate) fn run(folder: &Path, args: &[&str]) -> Ran {
    Ran::of(weft(folder, args).output().unwrap())
}

/// Runs the binary as a filter.
pub(crate) fn filter(folder: &Path, args: &[&str], input: impl AsRef<[u8]>) -> Ran {
    let mut child =
        weft(folder, args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.as_ref().to_vec();
    let writer = std::thread::spawn(move || {
        // A process that refuses its input closes it.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ran::of(output)
}

/// A folder of files.
pub(crate) fn folder_with(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// Numbers 0 to 9 as words, three to a line: what the small models learn.
pub(crate) fn pairs(count: usize, offset: usize) -> [String; 2] {
    const FROM: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    const TO: [&str; 10] = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"];
    let line = |index: usize, words: &[&str; 10]| {
        let draw = (index + offset).wrapping_mul(2_654_435_761) >> 7;
        let words: Vec<&str> = (0..3).map(|place| words[draw / 10usize.pow(place) % 10]).collect();
        words.join(" ") + "\n"
    };
    [FROM, TO].map(|words| (0..count).map(|index| line(index, &words)).collect())
}

/// A folder with a translator's data.
pub(crate) fn translation_data() -> TempDir {
    let ([train_source, train_target], [test_source, test_target]) = (pairs(400, 0), pairs(20, 1000));
    folder_with(&[
        ("train.en", &train_source),
        ("train.de", &train_target),
        ("test.en", &test_source),
        ("test.de", &test_target),
    ])
}

/// Options of a translator that is trained in a second or two.
pub(crate) const SMALL: [&str; 26] = [
    "train",
    "--train",
    "train.en",
    "train.de",
    "--validation",
    "test.en",
    "test.de",
    "--hidden-size",
    "32",
    "--layers",
    "1",
    "--heads",
    "2",
    "--vocab-size",
    "340",
    "--batch-tokens",
    "512",
    "--warmup",
    "10",
    "--learning-rate",
    "0.005",
    "--dropout",
    "0",
    "--validate-every",
    "20",
    "--seed=1",
];

/// A translator, trained once for all tests that only read it: its folder holds `run` and the data.
pub(crate) fn translator() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = translation_data();
        let args = [&SMALL[..], &["--steps", "120", "--output", "run"]].concat();
        run(folder.path(), &args).worked();
        folder
    });
    folder.path()
}

/// A language model, likewise: `run` and `book.txt`.
pub(crate) fn language_model() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = folder_with(&[("book.txt", &pairs(600, 0)[1])]);
        let args = [
            "train",
            "--train",
            "book.txt",
            "--tokenizer",
            "characters",
            "--hidden-size",
            "32",
            "--layers",
            "1",
            "--heads",
            "2",
            "--window",
            "32",
            "--batch-tokens",
            "512",
            "--steps",
            "40",
            "--output",
            "run",
        ];
        run(folder.path(), &args).worked();
        folder
    });
    folder.path()
}

/// A copy of a model that a test may break.
pub(crate) fn copy_of(model: &Path) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("model");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(model).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    (folder, copy)
}
