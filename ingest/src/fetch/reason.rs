use std::error::Error;
use std::fmt;

use super::FetchFailure;
use super::address::Refused;

/// Why a URL gave nothing. As text, an identifier that tables and reports keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FetchReason {
    /// There is no URL, or it is none.
    InvalidUrl,
    /// Neither http nor https.
    SchemeRefused,
    /// The host is this machine or in a private network.
    PrivateAddress,
    /// The name of the host has no address.
    DnsFailure,
    /// Nobody accepts connections there.
    ConnectFailure,
    /// No connection, or no further bytes, within the limit.
    Timeout,
    /// The whole took longer than allowed.
    TotalTimeout,
    /// The host cannot prove who it is.
    TlsFailure,
    /// An answer without the image: its code.
    HttpStatus(u16),
    /// One redirect too many.
    TooManyRedirects,
    /// The host does not want its image to be used.
    OptedOut,
    /// The body is compressed, though nobody asked for that.
    Encoded,
    /// More bytes than allowed.
    BodyTooLarge,
    /// The connection ended before the body did.
    BodyCut,
    /// There is no body.
    EmptyBody,
    /// What came is no HTTP.
    Protocol,
}

impl FetchReason {
    /// Those after which another attempt may end otherwise; `http_5xx` stands for all codes from 500 on.
    pub(crate) const TRANSIENT: [&str; 9] = [
        "body_cut",
        "connect_failure",
        "dns_failure",
        "http_408",
        "http_425",
        "http_429",
        "http_5xx",
        "timeout",
        "total_timeout",
    ];

    /// Whether another attempt may end otherwise.
    pub(super) fn is_retryable(self) -> bool {
        match self {
            Self::DnsFailure
            | Self::ConnectFailure
            | Self::Timeout
            | Self::TotalTimeout
            | Self::BodyCut
            | Self::HttpStatus(408 | 425 | 429 | 500..=599) => true,
            Self::InvalidUrl
            | Self::SchemeRefused
            | Self::PrivateAddress
            | Self::TlsFailure
            | Self::HttpStatus(_)
            | Self::TooManyRedirects
            | Self::OptedOut
            | Self::Encoded
            | Self::BodyTooLarge
            | Self::EmptyBody
            | Self::Protocol => false,
        }
    }
}

impl fmt::Display for FetchReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidUrl => "invalid_url",
            Self::SchemeRefused => "scheme_refused",
            Self::PrivateAddress => "private_address",
            Self::DnsFailure => "dns_failure",
            Self::ConnectFailure => "connect_failure",
            Self::Timeout => "timeout",
            Self::TotalTimeout => "total_timeout",
            Self::TlsFailure => "tls_failure",
            Self::HttpStatus(code) => return write!(f, "http_{code}"),
            Self::TooManyRedirects => "too_many_redirects",
            Self::OptedOut => "opted_out",
            Self::Encoded => "encoded",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyCut => "body_cut",
            Self::EmptyBody => "empty_body",
            Self::Protocol => "protocol",
        })
    }
}

/// What an error of the client means.
pub(super) fn of(error: &reqwest::Error) -> FetchFailure {
    let causes = || std::iter::successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source());
    let message = causes().last().map_or_else(|| error.to_string(), ToString::to_string);
    let says = |word: &str| causes().any(|cause| cause.to_string().contains(word));
    let reason = if let Some(refused) = causes().find_map(|cause| cause.downcast_ref::<Refused>()) {
        refused.reason()
    } else if error.is_timeout() {
        FetchReason::Timeout
    } else if says("certificate") || says("tls") || says("TLS") || says("corrupt message") {
        FetchReason::TlsFailure
    } else if error.is_connect() {
        FetchReason::ConnectFailure
    } else if error.is_body() || error.is_decode() {
        FetchReason::BodyCut
    } else {
        FetchReason::Protocol
    };
    FetchFailure::new(reason, message)
}

#[cfg(test)]
mod tests {
    use super::FetchReason;

    #[test]
    fn what_is_transient_is_tried_again() {
        let codes = (100..=599).map(FetchReason::HttpStatus);
        let others = [
            FetchReason::InvalidUrl,
            FetchReason::SchemeRefused,
            FetchReason::PrivateAddress,
            FetchReason::DnsFailure,
            FetchReason::ConnectFailure,
            FetchReason::Timeout,
            FetchReason::TotalTimeout,
            FetchReason::TlsFailure,
            FetchReason::TooManyRedirects,
            FetchReason::OptedOut,
            FetchReason::Encoded,
            FetchReason::BodyTooLarge,
            FetchReason::BodyCut,
            FetchReason::EmptyBody,
            FetchReason::Protocol,
        ];
        for reason in codes.chain(others) {
            let name = reason.to_string();
            let name = if name.starts_with("http_5") { "http_5xx" } else { &name };
            assert_eq!(FetchReason::TRANSIENT.contains(&name), reason.is_retryable(), "{reason}");
        }
    }
}
