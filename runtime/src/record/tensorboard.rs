//! TensorBoard event files: records of (length, masked CRC-32C, bytes, masked CRC-32C), each a protobuf `Event`.
//!
//! Written by hand because the message has only five fields. TensorBoard reads the test's file.

use std::fs::{self, File};
use std::io::{self, Write};

use camino::Utf8Path;

pub struct EventFile(File);

/// Source: TensorFlow, `lib/hash/crc32c.h`.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn bytes_field(number: u8, bytes: &[u8], to: &mut Vec<u8>) {
    to.push(number << 3 | 2);
    varint(bytes.len() as u64, to);
    to.extend_from_slice(bytes);
}

/// `Event { 1 double wall_time, 2 int64 step, 3 string file_version | 5 Summary }`
fn event(time: u64, step: u64, body: (u8, &[u8])) -> Vec<u8> {
    let mut message = vec![1 << 3 | 1];
    message.extend_from_slice(&(time as f64).to_le_bytes());
    message.push(2 << 3);
    varint(step, &mut message);
    bytes_field(body.0, body.1, &mut message);
    message
}

impl EventFile {
    pub fn create(folder: &Utf8Path, time: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut events = Self(File::create(
            folder.join(format!("events.out.tfevents.{time}.aurora.0")),
        )?);
        events.write(&event(time, 0, (3, b"brain.Event:2")))?;
        Ok(events)
    }

    /// `Summary { repeated 1 Value { 1 string tag, 2 float simple_value } }`
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)], time: u64) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut one = Vec::new();
            bytes_field(1, tag.as_bytes(), &mut one);
            one.push(2 << 3 | 5);
            one.extend_from_slice(&(*value as f32).to_le_bytes());
            bytes_field(1, &one, &mut summary);
        }
        self.write(&event(time, step, (5, &summary)))
    }

    fn write(&mut self, message: &[u8]) -> io::Result<()> {
        let length = (message.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(message.len() + 16);
        record.extend_from_slice(&length);
        record.extend_from_slice(&masked(&length).to_le_bytes());
        record.extend_from_slice(message);
        record.extend_from_slice(&masked(message).to_le_bytes());
        self.0.write_all(&record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_record_is_the_one_that_tensorboard_writes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8Path::from_path(folder.path()).expect("UTF-8");
        drop(EventFile::create(path, 0).expect("an events file"));
        let bytes = fs::read(path.join("events.out.tfevents.0.aurora.0")).expect("bytes");
        // Length 26, its masked checksum, and the version message as TensorBoard 2.21 reads it back.
        assert_eq!(bytes[..8], 26u64.to_le_bytes());
        assert_eq!(bytes[8..12], masked(&26u64.to_le_bytes()).to_le_bytes());
        assert!(bytes.windows(13).any(|window| window == b"brain.Event:2"));
        assert_eq!(bytes.len(), 8 + 4 + 26 + 4);
        assert_eq!(
            masked(b"123456789"),
            0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8)
        );
    }
}
