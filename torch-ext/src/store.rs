//! The key-value store through which ranks find each other.

#![expect(unsafe_code, reason = "calls the C interface of c10d's store")]

use std::fmt;
use std::ptr::NonNull;
use std::time::Duration;

use crate::ffi::{self, Failure, checked};
use crate::{StoreError, TorchError};

/// Where the store is, and whether this process serves it.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Name or address of the machine that serves.
    pub host: String,
    /// Port to serve on or to connect to; a server that asks for 0 gets a free one.
    pub port: u16,
    /// Whether this process is the one that serves. The server is also a client of itself.
    pub is_server: bool,
    /// Bounds every call, connecting included.
    pub timeout: Duration,
}

/// A connection to c10d's `TCPStore`, and its server in the process that serves.
///
/// Values are bytes. Nothing is ever deleted. A call that waits blocks all other calls on the same connection, so that a
/// thread that must not wait opens its own. Dropping the server's store closes the connections of all others.
pub struct TcpStore {
    handle: NonNull<ffi::Store>,
    address: String,
    timeout: Duration,
}

// SAFETY: c10d guards a client's socket with a lock and ties nothing to the thread that made it; the server has threads of
// its own.
unsafe impl Send for TcpStore {}

impl TcpStore {
    /// Connects to the store, and starts to serve it first if the options say so.
    ///
    /// # Errors
    ///
    /// [`StoreError::AddressInUse`] at once if the port cannot be served; [`StoreError::Unreachable`] after the time-out
    /// if no server answers.
    pub fn connect(options: &StoreOptions) -> Result<Self, StoreError> {
        let mut handle = std::ptr::null_mut();
        let address = format!("{}:{}", options.host, options.port);
        let result = checked(|message| {
            // SAFETY: the name is borrowed for the call, and both places to write to live on this stack.
            unsafe {
                ffi::fc_store_new(
                    options.host.as_ptr(),
                    options.host.len(),
                    options.port,
                    options.is_server.into(),
                    milliseconds(options.timeout),
                    &mut handle,
                    message,
                )
            }
        });
        match result {
            Ok(()) => {
                let handle = NonNull::new(handle).expect("a store without a failure is a store");
                let mut store = Self { handle, address, timeout: options.timeout };
                store.address = format!("{}:{}", options.host, store.port());
                Ok(store)
            }
            Err(Failure { status: ffi::ADDRESS_IN_USE, .. }) => Err(StoreError::AddressInUse { address }),
            Err(Failure { status: ffi::TIMED_OUT | ffi::CONNECTION_LOST, error }) if !options.is_server => {
                Err(StoreError::Unreachable { address, timeout: options.timeout, source: error })
            }
            Err(Failure { error, .. }) => Err(StoreError::Refused { address, source: error }),
        }
    }

    /// Returns host and port, for messages.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the port that is served or connected to.
    pub fn port(&self) -> u16 {
        // SAFETY: the handle is valid until `self` is dropped.
        unsafe { ffi::fc_store_port(self.handle.as_ptr()) }
    }

    /// Sets `key`, whether or not it was set before.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        checked(|message| {
            // SAFETY: the handle is valid; key and value are borrowed for the call.
            unsafe {
                ffi::fc_store_set(
                    self.handle.as_ptr(),
                    key.as_ptr(),
                    key.len(),
                    value.as_ptr(),
                    value.len(),
                    message,
                )
            }
        })
        .map_err(|failure| self.error(failure, &[key], self.timeout))
    }

    /// Sets `key` to `value` unless it is set, and returns what it holds then: of all who try, one wins.
    pub fn set_once(&self, key: &str, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.fetch(key, |held, held_len, message| {
            // SAFETY: the handle is valid; key and values are borrowed for the call; an empty value is never read.
            unsafe {
                ffi::fc_store_compare_set(
                    self.handle.as_ptr(),
                    key.as_ptr(),
                    key.len(),
                    std::ptr::null(),
                    0,
                    value.as_ptr(),
                    value.len(),
                    held,
                    held_len,
                    message,
                )
            }
        })
    }

    /// Returns what `key` holds, after waiting until it is set.
    pub fn get(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        self.fetch(key, |value, value_len, message| {
            // SAFETY: the handle is valid; the key is borrowed for the call.
            unsafe {
                ffi::fc_store_get(self.handle.as_ptr(), key.as_ptr(), key.len(), value, value_len, message)
            }
        })
    }

    /// Returns what `key` holds, or nothing if it is not set; never waits for it.
    pub fn peek(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        if self.check(&[key])? { self.get(key).map(Some) } else { Ok(None) }
    }

    /// Adds `amount` to the number at `key`, which starts at zero, and returns the sum.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64, StoreError> {
        let mut sum = 0;
        checked(|message| {
            // SAFETY: the handle is valid; the key is borrowed for the call; `sum` lives on this stack.
            unsafe {
                ffi::fc_store_add(self.handle.as_ptr(), key.as_ptr(), key.len(), amount, &mut sum, message)
            }
        })
        .map_err(|failure| self.error(failure, &[key], self.timeout))?;
        Ok(sum)
    }

    /// Returns whether all of `keys` are set; never waits for them.
    pub fn check(&self, keys: &[&str]) -> Result<bool, StoreError> {
        let (texts, lens) = parts(keys);
        let mut all_set = 0;
        checked(|message| {
            // SAFETY: the handle is valid; both arrays have one entry per key and live past the call.
            unsafe {
                ffi::fc_store_check(
                    self.handle.as_ptr(),
                    texts.as_ptr(),
                    lens.as_ptr(),
                    keys.len(),
                    &mut all_set,
                    message,
                )
            }
        })
        .map_err(|failure| self.error(failure, keys, self.timeout))?;
        Ok(all_set != 0)
    }

    /// Waits until all of `keys` are set.
    ///
    /// # Errors
    ///
    /// [`StoreError::Timeout`] names all keys that were waited for; which of them are set, [`check`](Self::check) tells.
    pub fn wait(&self, keys: &[&str], timeout: Duration) -> Result<(), StoreError> {
        let (texts, lens) = parts(keys);
        checked(|message| {
            // SAFETY: the handle is valid; both arrays have one entry per key and live past the call.
            unsafe {
                ffi::fc_store_wait(
                    self.handle.as_ptr(),
                    texts.as_ptr(),
                    lens.as_ptr(),
                    keys.len(),
                    milliseconds(timeout),
                    message,
                )
            }
        })
        .map_err(|failure| self.error(failure, keys, timeout))
    }

    /// Returns the handle, for groups to be built over.
    pub(crate) fn handle(&self) -> *mut ffi::Store {
        self.handle.as_ptr()
    }

    /// Runs a call that hands out bytes, and copies them.
    fn fetch(
        &self,
        key: &str,
        call: impl FnOnce(*mut *mut u8, *mut usize, ffi::Message) -> ffi::Status,
    ) -> Result<Vec<u8>, StoreError> {
        let (mut value, mut value_len) = (std::ptr::null_mut(), 0);
        checked(|message| call(&mut value, &mut value_len, message))
            .map_err(|failure| self.error(failure, &[key], self.timeout))?;
        // SAFETY: after a success `value` is an allocation of at least `value_len` bytes that the C++ side has filled.
        let bytes = unsafe { std::slice::from_raw_parts(value, value_len) }.to_vec();
        // SAFETY: the allocation was handed to us, and the slice over it is gone.
        unsafe { ffi::fc_bytes_free(value) };
        Ok(bytes)
    }

    fn error(&self, failure: Failure, keys: &[&str], timeout: Duration) -> StoreError {
        let Failure { status, error } = failure;
        let address = self.address.clone();
        match status {
            ffi::TIMED_OUT => StoreError::Timeout { address, keys: listed(keys), timeout },
            ffi::CONNECTION_LOST => StoreError::Lost { address, source: error },
            _ => StoreError::Refused { address, source: error },
        }
    }
}

impl Drop for TcpStore {
    fn drop(&mut self) {
        // SAFETY: the handle came from `fc_store_new`, and this is the only place that gives it back. Groups that were
        // built over the store share its ownership on the C++ side.
        unsafe { ffi::fc_store_free(self.handle.as_ptr()) };
    }
}

impl fmt::Debug for TcpStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStore").field("address", &self.address).field("timeout", &self.timeout).finish()
    }
}

impl StoreError {
    /// Returns what libtorch said, where it said more than the variant tells.
    pub fn torch_error(&self) -> Option<&TorchError> {
        match self {
            StoreError::Unreachable { source, .. }
            | StoreError::Lost { source, .. }
            | StoreError::Refused { source, .. } => Some(source),
            StoreError::AddressInUse { .. } | StoreError::Timeout { .. } => None,
        }
    }
}

/// Returns a time-out as C takes it; zero would mean "for ever" there.
pub(crate) fn milliseconds(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX).max(1)
}

fn parts(keys: &[&str]) -> (Vec<*const u8>, Vec<usize>) {
    keys.iter().map(|key| (key.as_ptr(), key.len())).unzip()
}

fn listed(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}
