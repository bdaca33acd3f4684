//! Bytes of a file that are looked at once and not kept.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use memmap2::{Advice, MmapMut};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Bytes that are copied at once from the memory of the system. They fit into the cache of a core, so that who looks at
/// them next finds them there.
const COPIED_BYTES: usize = 256 << 10;

/// Bytes that the disk writes at once: a huge page, which is one piece of memory to the device.
const PAGE_BYTES: usize = 2 << 20;

/// What direct reads begin at multiples of, whatever the device.
const ALIGNMENT: u64 = 4096;

/// Gives the bytes of a file to `take`, one piece after the other.
///
/// As far as the system holds the file in memory they come from there. From the first byte on that it does not, the disk
/// writes into the buffer itself (`O_DIRECT`): reading through the memory of the system costs copies and books of pages, and
/// drives from it what others need. A file that ends before `range` does gives fewer bytes.
pub(super) fn for_each_piece(file: &File, range: Range<u64>, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let Range { start, end } = range;
    let mut copied = vec![0; COPIED_BYTES];
    let held = |buffer: &mut [u8], at| {
        let found = preadv2(file, &mut [IoSliceMut::new(buffer)], at, ReadWriteFlags::NOWAIT);
        // An error, too, where a file system cannot tell what is in memory.
        Ok(found.unwrap_or(0))
    };
    let start = read_while(held, start..end, &mut copied, &mut take)?;
    let start = if start < end
        && start.is_multiple_of(ALIGNMENT)
        && let Ok((file, mut page)) = directly(file)
    {
        let direct = |buffer: &mut [u8], at| match file.read_at(buffer, at) {
            // What a file system without direct reads may say only now, and any says behind the end of the file.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(0),
            found => found,
        };
        read_while(direct, start..end, page.bytes(), &mut take)?
    } else {
        start
    };
    read_while(|buffer, at| file.read_at(buffer, at), start..end, &mut copied, &mut take)?;
    Ok(())
}

/// Reads until there is nothing more in this way; returns how far it came.
fn read_while(
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    range: Range<u64>,
    buffer: &mut [u8],
    take: &mut impl FnMut(&[u8]),
) -> io::Result<u64> {
    let Range { start: mut at, end } = range;
    while at < end {
        let found = match read(buffer, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            found => found?,
        };
        // The buffer may reach beyond the range.
        let found = usize::try_from(end - at).map_or(found, |left| found.min(left));
        if found == 0 {
            break;
        }
        take(&buffer[..found]);
        at += found as u64;
    }
    Ok(at)
}

/// Opens a file a second time, for reads past the memory of the system, and makes a buffer for them.
fn directly(file: &File) -> io::Result<(File, HugePage)> {
    let page = HugePage::allocate()?;
    let same = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    Ok((rustix::fs::open(same, flags, Mode::empty())?.into(), page))
}

/// Memory of one huge page, if the system gives such: of many small ones direct reads are slower than copies.
#[derive(Debug)]
struct HugePage {
    /// Large enough to hold an aligned page wherever it begins.
    memory: MmapMut,
}

impl HugePage {
    fn allocate() -> io::Result<Self> {
        let memory = MmapMut::map_anon(2 * PAGE_BYTES)?;
        memory.advise(Advice::HugePage)?;
        Ok(Self { memory })
    }

    fn bytes(&mut self) -> &mut [u8] {
        let before = self.memory.as_ptr().align_offset(PAGE_BYTES);
        &mut self.memory[before..before + PAGE_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use rustix::fs::{Advice, fadvise};

    use super::*;

    /// A file of so many bytes, of which the system holds none in memory from byte `held` on, if it does as it is asked.
    fn file(bytes: &[u8], held: u64) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, held, None, Advice::DontNeed).unwrap();
        file
    }

    fn read(file: &File, range: Range<u64>) -> Vec<u8> {
        let mut found = Vec::new();
        for_each_piece(file, range, |piece| {
            assert!(!piece.is_empty());
            found.extend_from_slice(piece);
        })
        .unwrap();
        found
    }

    fn bytes(number: usize) -> Vec<u8> {
        (0..number).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn every_byte_comes_once_wherever_the_memory_ends(
            number in 0_usize..7_000_000,
            held in 0_u64..7_000_000,
            start in prop_oneof![Just(0), 0_u64..7_000_000],
            is_cut in any::<bool>(),
        ) {
            let bytes = bytes(number);
            let file = file(&bytes, held);
            let start = start.min(number as u64);
            // Also where the file is shorter than it was said to be.
            let end = number as u64 + if is_cut { 5000 } else { 0 };
            prop_assert!(read(&file, start..end) == bytes[start as usize..]);
            let end = start + (number as u64 - start) / 2;
            prop_assert!(read(&file, start..end) == bytes[start as usize..end as usize]);
        }
    }

    #[test]
    fn what_cannot_be_read_directly_is_read_all_the_same() {
        // Files that the kernel makes up know nothing of direct reads.
        let file = File::open("/proc/self/status").unwrap();
        assert!(read(&file, 0..1 << 20).starts_with(b"Name:"));
    }

    #[test]
    fn a_file_that_cannot_be_read_says_so() {
        let file = File::options().write(true).open("/dev/null").unwrap();
        let error = for_each_piece(&file, 0..100, |_| {}).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::BADF.raw_os_error()));
    }
}
