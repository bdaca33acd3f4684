#![no_main]

use fastclip_fuzz::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| Target::Tar.feed(bytes));
