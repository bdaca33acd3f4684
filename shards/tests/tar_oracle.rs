//! Our tar against the `tar` crate: each must read what the other writes, and nothing may break the scanner.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::Read;

use fastclip_shards::tar::{self, Entry, Scanner, StreamScanner, TarError, TarWriteError};
use proptest::prelude::*;

type Files = Vec<(String, Vec<u8>)>;

fn name() -> impl Strategy<Value = String> {
    // Short names, names that need the prefix field, and names that need an extension record.
    prop_oneof![
        "[a-z0-9_]{1,20}\\.[a-z]{1,4}",
        "[a-z]{20,60}/[a-z]{20,60}/[a-z]{1,60}\\.jpg",
        "[a-zé]{90,130}/[a-z]{90,120}\\.jpg",
    ]
}

fn files() -> impl Strategy<Value = Files> {
    let data = prop_oneof![Just(0..1), Just(500..520), Just(1..3000)]
        .prop_flat_map(|length| prop::collection::vec(any::<u8>(), length));
    prop::collection::vec((name(), data), 0..8)
}

fn ours(files: &Files) -> Result<Vec<u8>, TarWriteError> {
    let mut bytes = Vec::new();
    for (name, data) in files {
        tar::append_member(&mut bytes, name, data)?;
    }
    let num_bytes = bytes.len() as u64;
    tar::append_end(&mut bytes, num_bytes);
    Ok(bytes)
}

/// Written by the `tar` crate: GNU headers with long names, or POSIX headers with PAX records.
fn theirs(files: &Files, is_pax: bool) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = if is_pax { ::tar::Header::new_ustar() } else { ::tar::Header::new_gnu() };
        header.set_mode(0o444);
        header.set_size(data.len() as u64);
        header.set_cksum();
        if is_pax {
            let size = data.len().to_string();
            let records = [("path", name.as_bytes()), ("mtime", b"1.5"), ("size", size.as_bytes())];
            builder.append_pax_extensions(records).unwrap();
            builder.append_data(&mut header, "short", data.as_slice()).unwrap();
        } else {
            builder.append_data(&mut header, name, data.as_slice()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn scanned(bytes: &[u8]) -> Files {
    let entries: Result<Vec<Entry>, TarError> = Scanner::new(bytes).collect();
    let data = |entry: &Entry| bytes[entry.data_start as usize..][..entry.num_bytes as usize].to_vec();
    entries.unwrap().iter().map(|entry| (entry.name.clone(), data(entry))).collect()
}

/// As [`scanned`], but in pieces of `piece` bytes.
fn streamed(bytes: &[u8], piece: usize) -> Result<Files, TarError> {
    let mut scanner = StreamScanner::new();
    let mut found = Vec::new();
    for piece in bytes.chunks(piece) {
        scanner.push(
            piece,
            |_| true,
            |entry, data| found.push((entry.name.clone(), data.unwrap().to_vec())),
        )?;
    }
    scanner.finish()?;
    Ok(found)
}

fn read_by_crate(bytes: &[u8]) -> Files {
    let mut archive = ::tar::Archive::new(bytes);
    let read = |entry: std::io::Result<::tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        (name, data)
    };
    archive.entries().unwrap().map(read).collect()
}

proptest! {
    #[test]
    fn what_we_write_both_read_equally(files in files()) {
        let fits = |name: &str| tar::append_member(&mut Vec::new(), name, b"").is_ok();
        let files: Files = files.into_iter().filter(|(name, _)| fits(name)).collect();
        let bytes = ours(&files).unwrap();
        prop_assert_eq!(bytes.len() % 10_240, 0);
        prop_assert_eq!(&scanned(&bytes), &files);
        prop_assert_eq!(&read_by_crate(&bytes), &files);
    }

    #[test]
    fn what_the_crate_writes_we_read(files in files(), is_pax: bool, piece in 1_usize..2000) {
        let bytes = theirs(&files, is_pax);
        prop_assert_eq!(&scanned(&bytes), &files);
        prop_assert_eq!(&streamed(&bytes, piece).unwrap(), &files);
    }

    #[test]
    fn slice_and_stream_agree_on_damaged_tars(
        files in files(),
        is_pax: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        piece in 1_usize..2000,
    ) {
        let mut bytes = theirs(&files, is_pax);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let by_slice: Result<Vec<_>, TarError> = Scanner::new(&bytes).map(|entry| entry.map(|e| e.name)).collect();
        let by_stream = streamed(&bytes, piece).map(|files| files.into_iter().map(|(name, _)| name).collect());
        match by_stream {
            // A slice may be a run cut out of a tar, so it needs no end mark.
            Err(TarError::MissingEnd { .. }) => prop_assert!(by_slice.is_ok()),
            // Here the stream cannot know yet that nothing follows the record.
            Err(TarError::CutHeader { .. }) => prop_assert!(by_slice.is_err()),
            by_stream => prop_assert_eq!(by_stream, by_slice),
        }
    }

    #[test]
    fn no_bytes_break_the_scanner(bytes: Vec<u8>) {
        let mut bytes = bytes;
        bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
        let _ = Scanner::new(&bytes).count();
    }
}

#[test]
fn a_cut_tar_is_refused_at_the_byte_where_it_is_cut() {
    let bytes = ours(&vec![("a.jpg".to_owned(), vec![1; 700]), ("b.jpg".to_owned(), vec![2; 700])]).unwrap();
    // Header of `b` at 1,536, its data to 2,748, padded to 3,072.
    let message = |cut: usize| streamed(&bytes[..cut], 512).unwrap_err().to_string();
    assert_eq!(message(1536), "the tar ends at byte 1536 without an end mark");
    assert_eq!(message(1600), "the tar is cut at byte 1600, inside the header that starts at byte 1536");
    assert_eq!(
        message(2500),
        "the tar is cut at byte 2500: `b.jpg`, whose header starts at byte 1536, reaches to byte 3072"
    );
    let by_slice = Scanner::new(&bytes[..2500]).last().unwrap().unwrap_err().to_string();
    assert_eq!(by_slice, message(2500));
}

#[test]
fn absurd_headers_are_refused_at_their_byte() {
    let good = ours(&vec![("a.jpg".to_owned(), vec![1; 700])]).unwrap();
    let first_error = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = good.clone();
        change(&mut bytes);
        Scanner::new(&bytes).find_map(Result::err).unwrap().to_string()
    };
    let error = first_error(&|bytes| bytes[0] = b'b');
    assert!(error.starts_with("the tar header at byte 0 has checksum "), "{error}");
    let error = first_error(&|bytes| bytes[1536..2048].fill(0xff));
    assert_eq!(error, "byte 1536 holds no tar header");
    let error = first_error(&|bytes| {
        // A size of almost 2⁶⁴ with a checksum that fits.
        bytes[124..136].copy_from_slice(&[0x80, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 254]);
        let sum: u32 =
            bytes[..148].iter().chain(&[b' '; 8]).chain(&bytes[156..512]).map(|&b| u32::from(b)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    });
    assert_eq!(error, "the tar header at byte 0 has an impossible size");
}

#[test]
fn names_that_fit_no_header_are_refused() {
    for name in ["", "folder/", "nul\0.jpg", &"x".repeat(101), &format!("{}/x.jpg", "d".repeat(156))] {
        let refused = tar::append_member(&mut Vec::new(), name, b"");
        assert_eq!(refused, Err(TarWriteError::Name { name: name.to_owned() }));
    }
}

#[test]
fn the_bytes_we_write_are_fixed() {
    let files =
        vec![("000000000.jpg".to_owned(), b"jpeg".to_vec()), ("000000000.txt".to_owned(), b"a dog".to_vec())];
    let bytes = ours(&files).unwrap();
    assert_eq!(
        blake3::hash(&bytes).to_hex().as_str(),
        "72697bc6a70476c4878a5e35e470a50fad40480b1baba6d95307e6ec848cd9b1"
    );
}
