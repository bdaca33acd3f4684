use std::ffi::{CStr, OsStr, OsString, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::thread;

use libloading::Library;

use super::{ALIGNMENT, HostAllocator, HostMemory, PageableAllocator};

/// Where the CUDA runtime is looked for: newest first, then what development packages install.
const LIBRARIES: [&str; 4] = ["libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so"];

/// `cudaHostAllocPortable`: page-locked for all devices, not for the current one only.
const PORTABLE: c_uint = 1;

type SetDevice = unsafe extern "C" fn(c_int) -> c_int;
type HostAlloc = unsafe extern "C" fn(*mut *mut c_void, usize, c_uint) -> c_int;
type FreeHost = unsafe extern "C" fn(*mut c_void) -> c_int;
type GetErrorString = unsafe extern "C" fn(c_int) -> *const c_char;

/// Why there is no page-locked memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinnedError {
    /// The runtime is not there, or cannot be loaded.
    #[error("could not load the CUDA runtime, having tried {tried}")]
    Library {
        /// Names that were tried, in order.
        tried: String,
        /// What became of the first.
        #[source]
        source: libloading::Error,
    },
    /// The library is no CUDA runtime.
    #[error("`{library}` has no function `{function}`")]
    Function {
        /// The library.
        library: String,
        /// What it lacks.
        function: &'static str,
        /// Why.
        #[source]
        source: libloading::Error,
    },
    /// The runtime refused, for want of a device for example.
    #[error("`{library}` gave no {num_bytes} bytes of page-locked memory: {message} (CUDA error {code})")]
    Refused {
        /// The library.
        library: String,
        /// Bytes asked for.
        num_bytes: usize,
        /// The runtime's words.
        message: String,
        /// Its number.
        code: i32,
    },
}

/// What to do where memory cannot be page-locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutCuda {
    /// Say why, and end.
    Fail,
    /// Log why, and take ordinary memory.
    UsePageable,
}

/// Takes page-locked memory, from which a device copies by itself, faster and while others compute.
///
/// Needs the CUDA runtime when the program runs, not when it is built. Page-locked memory is never swapped out: what a
/// loader takes (see [`MemoryBound::batches`](crate::MemoryBound)) is gone for everybody else.
///
/// All devices may copy from the memory, but the runtime takes it by one of them, where that needs some hundred megabytes:
/// each process should name the device that it computes on. A thread that takes memory or gives it back is left with that
/// device as its current one.
#[derive(Debug, Clone)]
pub struct PinnedAllocator {
    runtime: Arc<Runtime>,
}

impl PinnedAllocator {
    /// Loads the CUDA runtime from where the system finds libraries, and tries it with a device, which counts from 0.
    ///
    /// # Errors
    /// When there is no runtime, no such device, or no page-locked memory.
    pub fn load(device: u32) -> Result<Self, PinnedError> {
        Self::load_first(LIBRARIES.map(OsString::from), device)
    }

    /// Loads the CUDA runtime from a file, and tries it with a device.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_from(library: impl AsRef<OsStr>, device: u32) -> Result<Self, PinnedError> {
        Self::load_first([library.as_ref().to_owned()], device)
    }

    fn load_first(libraries: impl IntoIterator<Item = OsString>, device: u32) -> Result<Self, PinnedError> {
        let allocator = Self { runtime: Arc::new(Runtime::load(libraries, device)?) };
        // Without a device the runtime loads all the same. Better known now than at the first batch. On a thread of its
        // own, so that the caller's keeps its device.
        let tried = thread::scope(|scope| scope.spawn(|| Pinned::new(&allocator.runtime, ALIGNMENT)).join());
        tried.expect("taking memory does not panic")?;
        Ok(allocator)
    }
}

/// Returns what takes page-locked memory by a device, or ordinary memory where there is none and that is what was asked for.
///
/// # Errors
/// As [`PinnedAllocator::load`], with [`WithoutCuda::Fail`] only.
pub fn page_locked(device: u32, without: WithoutCuda) -> Result<Arc<dyn HostAllocator>, PinnedError> {
    match (PinnedAllocator::load(device), without) {
        (Ok(allocator), _) => Ok(Arc::new(allocator)),
        (Err(error), WithoutCuda::Fail) => Err(error),
        (Err(error), WithoutCuda::UsePageable) => {
            tracing::warn!("batches are in ordinary memory: {error}");
            Ok(Arc::new(PageableAllocator))
        }
    }
}

impl HostAllocator for PinnedAllocator {
    fn allocate(&self, num_bytes: usize) -> io::Result<Box<dyn HostMemory>> {
        Ok(Box::new(Pinned::new(&self.runtime, num_bytes).map_err(io::Error::other)?))
    }
}

/// The functions that are used of the CUDA runtime.
struct Runtime {
    name: String,
    /// By which memory is taken and given back.
    device: c_int,
    set_device: SetDevice,
    host_alloc: HostAlloc,
    free_host: FreeHost,
    get_error_string: GetErrorString,
    /// What the functions are in: dropped last.
    _library: Library,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Runtime").field(&self.name).finish()
    }
}

impl Runtime {
    fn load(names: impl IntoIterator<Item = OsString>, device: u32) -> Result<Self, PinnedError> {
        let mut tried = Vec::new();
        let mut first_failure = None;
        for name in names {
            match open(&name) {
                Ok(library) => return Self::of(library, name.to_string_lossy().into_owned(), device),
                Err(error) => {
                    tried.push(format!("`{}`", name.display()));
                    first_failure.get_or_insert(error);
                }
            }
        }
        let source = first_failure.expect("at least one name is given, and none was loaded");
        Err(PinnedError::Library { tried: tried.join(", "), source })
    }

    #[expect(unsafe_code, reason = "functions of a C library have the types that its header says")]
    fn of(library: Library, name: String, device: u32) -> Result<Self, PinnedError> {
        fn function<T: Copy>(
            library: &Library,
            in_library: &str,
            name: &'static str,
        ) -> Result<T, PinnedError> {
            // SAFETY: the callers below ask for the types that `cuda_runtime_api.h` has given these functions since
            // CUDA 4; `Runtime` keeps the library for as long as it keeps them.
            let found = unsafe { library.get::<T>(name) };
            found.map(|symbol| *symbol).map_err(|source| PinnedError::Function {
                library: in_library.to_owned(),
                function: name,
                source,
            })
        }
        Ok(Self {
            // One beyond all numbers of devices is refused by the runtime, as any that is not there.
            device: c_int::try_from(device).unwrap_or(c_int::MAX),
            set_device: function(&library, &name, "cudaSetDevice")?,
            host_alloc: function(&library, &name, "cudaHostAlloc")?,
            free_host: function(&library, &name, "cudaFreeHost")?,
            get_error_string: function(&library, &name, "cudaGetErrorString")?,
            name,
            _library: library,
        })
    }

    /// Takes so many bytes; returns where they begin, or the number of an error.
    #[expect(unsafe_code, reason = "the CUDA runtime is C")]
    fn take(&self, num_bytes: usize) -> Result<*mut u8, c_int> {
        self.make_current()?;
        let mut start = ptr::null_mut();
        // SAFETY: `start` is a place for a pointer, which the function fills if it returns 0.
        succeeded(unsafe { (self.host_alloc)(&raw mut start, num_bytes, PORTABLE) })?;
        Ok(start.cast())
    }

    /// Gives bytes back.
    ///
    /// # Safety
    /// `start` came from [`take`](Self::take), is not used any more, and is given back once.
    #[expect(unsafe_code, reason = "the CUDA runtime is C")]
    unsafe fn give_back(&self, start: NonNull<u8>) -> Result<(), c_int> {
        self.make_current()?;
        // SAFETY: as the caller says.
        succeeded(unsafe { (self.free_host)(start.as_ptr().cast()) })
    }

    /// Chooses the device for this thread: with another one, the runtime would set that one up, too.
    #[expect(unsafe_code, reason = "the CUDA runtime is C")]
    fn make_current(&self) -> Result<(), c_int> {
        // SAFETY: the function takes any number, from any thread.
        succeeded(unsafe { (self.set_device)(self.device) })
    }

    #[expect(unsafe_code, reason = "the CUDA runtime is C")]
    fn words(&self, code: c_int) -> String {
        // SAFETY: the function takes any number, and returns a constant text that ends with a zero, or nothing.
        let text = unsafe { (self.get_error_string)(code) };
        if text.is_null() {
            return "no message".to_owned();
        }
        // SAFETY: as above.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

fn succeeded(code: c_int) -> Result<(), c_int> {
    if code == 0 { Ok(()) } else { Err(code) }
}

#[expect(unsafe_code, reason = "loading a library runs code of it")]
fn open(name: &OsStr) -> Result<Library, libloading::Error> {
    // SAFETY: the CUDA runtime sets nothing up when it is loaded, and may be loaded from any thread. That it is the CUDA
    // runtime is what its name, or the caller, says.
    unsafe { Library::new(name) }
}

/// Page-locked memory.
#[derive(Debug)]
struct Pinned {
    start: NonNull<u8>,
    num_bytes: usize,
    runtime: Arc<Runtime>,
}

impl Pinned {
    #[expect(unsafe_code, reason = "the CUDA runtime is C")]
    fn new(runtime: &Arc<Runtime>, num_bytes: usize) -> Result<Self, PinnedError> {
        // The runtime gives nothing for no bytes, and whole pages for any.
        let asked = num_bytes.max(1);
        let refused =
            |code, message| PinnedError::Refused { library: runtime.name.clone(), num_bytes, message, code };
        let start = runtime.take(asked).map_err(|code| refused(code, runtime.words(code)))?;
        let start = NonNull::new(start).ok_or_else(|| refused(0, "a null pointer".to_owned()))?;
        let memory = Self { start, num_bytes, runtime: Arc::clone(runtime) };
        if !start.addr().get().is_multiple_of(ALIGNMENT) {
            // Freed by dropping it.
            return Err(refused(0, format!("it begins at {start:?}, no multiple of {ALIGNMENT}")));
        }
        // SAFETY: the runtime gave `asked` bytes there, which nobody else knows of yet. They may hold anything.
        unsafe { start.write_bytes(0, asked) };
        Ok(memory)
    }
}

// SAFETY: page-locked memory belongs to the process: any thread may use and free it, and the runtime's functions may be
// called from any thread.
#[expect(unsafe_code, reason = "a pointer to bytes that are owned")]
unsafe impl Send for Pinned {}
// SAFETY: `&Pinned` gives out a pointer and a length, and touches no byte.
#[expect(unsafe_code, reason = "a pointer to bytes that are owned")]
unsafe impl Sync for Pinned {}

// SAFETY: `new` got at least `num_bytes` at `start` from the runtime, checked where they begin, and wrote zeros; only `drop`
// gives them back. The pointer is never changed or given to anyone but the caller.
#[expect(unsafe_code, reason = "memory from the CUDA runtime")]
unsafe impl HostMemory for Pinned {
    fn start(&self) -> NonNull<u8> {
        self.start
    }

    fn num_bytes(&self) -> usize {
        self.num_bytes
    }
}

impl Drop for Pinned {
    #[expect(unsafe_code, reason = "the CUDA runtime is C")]
    fn drop(&mut self) {
        // SAFETY: `start` came from this runtime and is given back only here, once.
        if let Err(code) = unsafe { self.runtime.give_back(self.start) } {
            // At the end of a process the runtime may be gone before the memory is. Nothing is to be done about it.
            tracing::debug!("page-locked memory was not given back: {}", self.runtime.words(code));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_runtime_is_reported_by_all_names_that_were_tried() {
        let names = ["libno-such-runtime.so.1", "/no/such/folder/libcudart.so"].map(OsString::from);
        let error = PinnedAllocator::load_first(names, 0).unwrap_err();
        assert!(matches!(error, PinnedError::Library { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.ends_with("tried `libno-such-runtime.so.1`, `/no/such/folder/libcudart.so`"), "{text}");
    }

    #[test]
    fn a_library_that_is_no_runtime_is_reported_by_what_it_lacks() {
        let error = PinnedAllocator::load_from("libc.so.6", 0).unwrap_err().to_string();
        assert_eq!(error, "`libc.so.6` has no function `cudaSetDevice`");
    }

    /// On a machine with a device, the real memory; on others, the real refusal, and ordinary memory if that is asked for.
    #[test]
    fn memory_is_page_locked_where_there_is_a_device_and_ordinary_elsewhere_if_asked() {
        let fallback = page_locked(0, WithoutCuda::UsePageable).unwrap();
        let allocator: Arc<dyn HostAllocator> = match page_locked(0, WithoutCuda::Fail) {
            Ok(allocator) => allocator,
            Err(error) => {
                println!("not tested on a device: {error}");
                assert!(!matches!(error, PinnedError::Function { .. }), "{error}");
                fallback
            }
        };
        for num_bytes in [0, 1, 4097, 3 * 224 * 224 * 16] {
            let memory = allocator.allocate(num_bytes).unwrap();
            assert_eq!((memory.num_bytes(), memory.start().addr().get() % ALIGNMENT), (num_bytes, 0));
            let frames = crate::buffer::Frames::new(memory, 1, crate::buffer::Loan::default());
            assert!(frames.bytes().iter().all(|&byte| byte == 0), "{num_bytes} bytes");
            let (split, slots) = frames.split(num_bytes.min(100));
            slots.into_iter().for_each(|mut slot| slot.bytes_mut().fill(7));
            assert!(split.join().bytes()[..num_bytes.min(100)].iter().all(|&byte| byte == 7));
        }
    }

    /// Stands for a runtime with eight devices, and counts by which of them memory is taken or given back.
    const EIGHT_DEVICES: &str = r#"
        #include <stdlib.h>
        static __thread int current = 0;
        int uses[8];
        int cudaSetDevice(int device) { if (device < 0 || device > 7) return 101; current = device; return 0; }
        int cudaHostAlloc(void** start, size_t size, unsigned flags) {
            (void)flags;
            __sync_fetch_and_add(&uses[current], 1);
            return posix_memalign(start, 4096, size);
        }
        int cudaFreeHost(void* start) { __sync_fetch_and_add(&uses[current], 1); free(start); return 0; }
        const char* cudaGetErrorString(int code) { return code == 101 ? "invalid device ordinal" : "unknown"; }
    "#;

    #[test]
    #[expect(unsafe_code, reason = "reads what the library counted")]
    fn memory_is_taken_and_given_back_by_the_device_that_was_named_on_any_thread() {
        let folder = tempfile::tempdir().unwrap();
        let [source, library] = ["runtime.c", "libcudart.so"].map(|name| folder.path().join(name));
        std::fs::write(&source, EIGHT_DEVICES).unwrap();
        let mut compile = std::process::Command::new("cc");
        compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
        assert!(compile.status().unwrap().success());

        let allocator = PinnedAllocator::load_from(&library, 3).unwrap();
        let memory = thread::scope(|scope| scope.spawn(|| allocator.allocate(1000).unwrap()).join().unwrap());
        thread::spawn(|| drop(memory)).join().unwrap();
        // SAFETY: `uses` is an array of eight numbers, and no thread changes it now.
        let uses = unsafe {
            let library = Library::new(&library).unwrap();
            **library.get::<*const [c_int; 8]>("uses").unwrap()
        };
        assert_eq!(uses, [0, 0, 0, 4, 0, 0, 0, 0]);

        for device in [8, u32::MAX] {
            let error = PinnedAllocator::load_from(&library, device).unwrap_err();
            assert!(matches!(error, PinnedError::Refused { code: 101, .. }), "{error:?}");
            assert!(error.to_string().contains("invalid device ordinal"), "{error}");
        }
    }
}
