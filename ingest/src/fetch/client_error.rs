//! What an error of the HTTP client means. It tells causes apart by type, several crates deep.

use std::error::Error;
use std::io;

use rustls::{CertificateError, Error as TlsError};

use super::resolver::{Unresolved, is_local};
use super::{FetchFailure, FetchReason};

/// The failure that an error of the client is.
pub(super) fn failure_of(error: &reqwest::Error) -> FetchFailure {
    if let Some(unresolved) = find::<Unresolved>(error) {
        return unresolved.clone().into();
    }
    let message = causes(error).last().map_or_else(|| error.to_string(), ToString::to_string);
    let says = |words: &str| causes(error).any(|cause| cause.to_string().contains(words));
    let reason = if find::<io::Error>(error).is_some_and(is_local) {
        FetchReason::LocalFailure
    } else if let Some(error) = find::<TlsError>(error) {
        reason_of_tls(error)
    } else if error.is_timeout() && error.is_connect() {
        FetchReason::ConnectTimeout
    } else if error.is_timeout() {
        FetchReason::Timeout
    } else if says("tls handshake eof") {
        FetchReason::TlsFailure
    } else if error.is_connect() {
        FetchReason::ConnectFailure
    } else if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse_too_large) {
        FetchReason::HeadersTooLarge
    } else if error.is_body() || error.is_decode() {
        FetchReason::BodyCut
    } else {
        FetchReason::Protocol
    };
    FetchFailure::new(reason, message)
}

fn reason_of_tls(error: &TlsError) -> FetchReason {
    let TlsError::InvalidCertificate(error) = error else { return FetchReason::TlsFailure };
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => FetchReason::TlsExpired,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            FetchReason::TlsWrongHost
        }
        CertificateError::UnknownIssuer => FetchReason::TlsUnknownIssuer,
        _ => FetchReason::TlsBadCertificate,
    }
}

/// The first cause of a type.
fn find<T: Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    causes(error).find_map(|cause| cause.downcast_ref::<T>())
}

/// All causes, from the outermost one in.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause| inner(*cause))
}

/// The cause of a cause. An I/O error hides what it was made of: its source is the source of that.
fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    }
}
