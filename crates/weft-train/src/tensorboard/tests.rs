use proptest::prelude::*;

use super::*;

/// Records that TensorBoard 2.21's own writer (`RecordWriter`, `event_pb2`) made of the events in
/// [`our_bytes_are_those_of_the_official_writer`].
const OFFICIAL: [&str; 5] = [
    "1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9",
    "100000000000000095fbfe180900006040fc54d94110ad023a020801118727df",
    "2100000000000000017becf60900008040fc54d9412a160a140a0d6c6f73732f747261696e696e671500002040397ee7df",
    "4d000000000000003d63d4a6090000f040fc54d94110959aef3a2a3d0a160a0f6c6f73732f76616c69646174696f6e15000000800a0f0a08\
     424c455520e29c9315000019420a0b0a0472617465150000807f0a05150000000005451fcc",
    "0d000000000000003c37b8340900000041fc54d94110072a00b2393af1",
];

/// What the decoder below understands of an event.
#[derive(Debug, Default, PartialEq)]
struct Decoded {
    wall_time: f64,
    step: u64,
    file_version: Option<String>,
    /// Tags, and values as bits, so that NaN equals NaN.
    scalars: Vec<(String, u32)>,
    session_status: Option<u64>,
}

/// The records of a file whose checksums are right; `Err` with the whole ones where the file breaks off.
fn records(mut bytes: &[u8]) -> Result<Vec<&[u8]>, Vec<&[u8]>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let Some((header, rest)) = bytes.split_at_checked(12) else { return Err(records) };
        let (length, checksum) = header.split_at(8);
        let size = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        let Some((record, rest)) = rest.split_at_checked(size) else { return Err(records) };
        let Some((record_checksum, rest)) = rest.split_at_checked(4) else { return Err(records) };
        assert_eq!(checksum, slow_masked_checksum(length).to_le_bytes());
        assert_eq!(record_checksum, slow_masked_checksum(record).to_le_bytes());
        records.push(record);
        bytes = rest;
    }
    Ok(records)
}

/// Bit by bit as polynomial division, without a table.
fn slow_masked_checksum(bytes: &[u8]) -> u32 {
    let mut remainder = u32::MAX;
    for byte in bytes {
        for bit in 0..8 {
            let bit = u32::from(byte >> bit & 1);
            let carry = (remainder ^ bit) & 1;
            remainder = (remainder >> 1) ^ (carry * 0x82f6_3b78);
        }
    }
    let checksum = !remainder;
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The fields of a message: number, and the value's bytes (varints as eight).
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let end = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap();
        let value = bytes[..=end].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
        *bytes = &bytes[end + 1..];
        value
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let size = match key & 7 {
            0 => {
                fields.push((key >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = bytes.split_at(size);
        fields.push((key >> 3, value.to_vec()));
        bytes = rest;
    }
    fields
}

fn decoded(record: &[u8]) -> Decoded {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut event = Decoded::default();
    for (field, value) in fields(record) {
        match field {
            1 => event.wall_time = f64::from_le_bytes(value[..].try_into().unwrap()),
            2 => event.step = number(&value),
            3 => event.file_version = Some(text(&value)),
            5 => {
                for (_, scalar) in fields(&value) {
                    let (mut tag, mut bits) = (String::new(), None);
                    for (field, value) in fields(&scalar) {
                        match field {
                            1 => tag = text(&value),
                            2 => bits = Some(u32::from_le_bytes(value[..].try_into().unwrap())),
                            other => panic!("field {other} in a scalar"),
                        }
                    }
                    event.scalars.push((tag, bits.unwrap()));
                }
            }
            7 => event.session_status = Some(number(&fields(&value)[0].1)),
            other => panic!("field {other} in an event"),
        }
    }
    event
}

fn read(path: &Path) -> Vec<Decoded> {
    records(&std::fs::read(path).unwrap()).unwrap().into_iter().map(decoded).collect()
}

#[test]
fn our_bytes_are_those_of_the_official_writer() {
    let scalars: [&[(&str, f32)]; 3] = [
        &[("loss/training", 2.5)],
        &[("loss/validation", -0.0), ("BLEU ✓", 38.25), ("rate", f32::INFINITY), ("", 0.0)],
        &[],
    ];
    let ours = [
        event(1_700_000_000.25, 0, &Content::FileVersion),
        event(1_700_000_001.5, 301, &Content::SessionStart),
        event(1_700_000_002.0, 0, &Content::Scalars(scalars[0])),
        event(1_700_000_003.75, 123_456_789, &Content::Scalars(scalars[1])),
        event(1_700_000_004.0, 7, &Content::Scalars(scalars[2])),
    ];
    for (ours, official) in ours.iter().zip(OFFICIAL) {
        let hex: String = record(ours).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, official);
    }
}

#[test]
fn the_checksum_is_castagnolis() {
    // The check value in the catalogue of CRC algorithms, and the all-zeros vector of RFC 3720, B.4.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(b""), 0);
}

#[test]
fn a_resumed_run_says_where_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("runs").join("first");
    let mut first = EventWriter::create(&folder, None).unwrap();
    first.scalars(1, &[("loss", 3.0)]).unwrap();
    first.scalars(2, &[("loss", 2.0)]).unwrap();
    let mut second = EventWriter::create(&folder, Some(2)).unwrap();
    second.scalars(2, &[("loss", 1.5), ("rate", 0.1)]).unwrap();
    second.sync().unwrap();
    assert_ne!(first.path(), second.path());
    let (first, second) = (read(first.path()), read(second.path()));
    assert_eq!(first[0].file_version.as_deref(), Some("brain.Event:2"));
    let steps: Vec<u64> = first.iter().map(|event| event.step).collect();
    assert_eq!((first.len(), steps), (3, vec![0, 1, 2]));
    assert_eq!(first[2].scalars, [("loss".to_owned(), 2f32.to_bits())]);
    assert_eq!((second[1].session_status, second[1].step), (Some(1), 2));
    assert_eq!(second[2].scalars, [("loss".to_owned(), 1.5f32.to_bits()), ("rate".to_owned(), 0.1f32.to_bits())]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(second.iter().all(|event| (now - 600.0..=now).contains(&event.wall_time)));
}

#[test]
fn names_are_what_tensorboard_looks_for() {
    let folder = tempfile::tempdir().unwrap();
    let writer = EventWriter::create(folder.path(), None).unwrap();
    let name = writer.path().file_name().unwrap().to_str().unwrap();
    let rest = name.strip_prefix("events.out.tfevents.").unwrap();
    let (time, host) = rest.split_once('.').unwrap();
    assert!(time.len() == 10 && time.parse::<u64>().is_ok(), "{name}");
    assert!(!host.is_empty() && !host.contains(['/', ' ', '\n']), "{name}");
}

#[test]
fn a_killed_run_leaves_whole_records() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = EventWriter::create(folder.path(), None).unwrap();
    for step in 1..=5 {
        writer.scalars(step, &[("loss", 1.0)]).unwrap();
    }
    let bytes = std::fs::read(writer.path()).unwrap();
    assert_eq!(writer.length, bytes.len() as u64);
    for length in 0..bytes.len() {
        let whole = records(&bytes[..length]).unwrap_or_else(|whole| whole);
        assert!(whole.len() < 6 && whole.iter().all(|record| decoded(record).wall_time > 0.0));
    }
}

#[test]
fn failures_name_the_file_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("taken");
    std::fs::write(&file, "").unwrap();
    let error = EventWriter::create(&file, None).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot make {} for TensorBoard events", file.display()));
    assert!(error.hint().unwrap().contains("must be a folder") && std::error::Error::source(&error).is_some());
}

/// Where a device that is always full exists, a failed write is an error with the disk named as its cause.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let full = PathBuf::from("/dev/full");
    let Ok(file) = OpenOptions::new().append(true).open(&full) else { return };
    let mut writer = EventWriter { path: full, file, length: 0 };
    let error = writer.scalars(1, &[("loss", 1.0)]).unwrap_err();
    assert_eq!(error.to_string(), "cannot add an event to /dev/full");
    assert_eq!(error.hint().unwrap(), "make room on the disk");
}

proptest! {
    #[test]
    fn any_scalars_can_be_read_back(
        time in 0f64..1e11,
        step in prop_oneof![0u64..300, any::<u64>()],
        scalars in prop::collection::vec((".{0,200}", any::<f32>()), 0..8),
    ) {
        let values: Vec<(&str, f32)> = scalars.iter().map(|(tag, value)| (tag.as_str(), *value)).collect();
        let bytes = record(&event(time, step, &Content::Scalars(&values)));
        let wanted = Decoded {
            wall_time: time,
            step: step.min(i64::MAX as u64),
            scalars: scalars.iter().map(|(tag, value)| (tag.clone(), value.to_bits())).collect(),
            ..Decoded::default()
        };
        prop_assert_eq!(decoded(records(&bytes).unwrap()[0]), wanted);
    }
}
