use std::fmt;

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
    /// There is no host of that name, or it has no address.
    DnsUnknown,
    /// The DNS servers failed to find the name's address.
    DnsFailure,
    /// No DNS server answered.
    DnsTimeout,
    /// Nobody accepts connections there.
    ConnectFailure,
    /// No connection within the limit.
    ConnectTimeout,
    /// No further bytes within the limit.
    Timeout,
    /// The whole took longer than allowed.
    TotalTimeout,
    /// Bytes came, but fewer a second than wanted.
    TooSlow,
    /// The host's certificate has expired, or is not valid yet.
    TlsExpired,
    /// The host's certificate is for another host.
    TlsWrongHost,
    /// Nobody who is trusted vouches for the host's certificate.
    TlsUnknownIssuer,
    /// The host's certificate cannot be used for another reason.
    TlsBadCertificate,
    /// What came is no TLS, or none that can be spoken.
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
    /// More headers than anybody needs.
    HeadersTooLarge,
    /// What came is no HTTP.
    Protocol,
    /// This machine has run out of something that a connection needs.
    LocalFailure,
}

impl FetchReason {
    /// Those that may have passed by another day; `http_5xx` stands for all codes from 500 on.
    pub(crate) const TRANSIENT: [&str; 13] = [
        "body_cut",
        "connect_failure",
        "connect_timeout",
        "dns_failure",
        "dns_timeout",
        "http_408",
        "http_425",
        "http_429",
        "http_5xx",
        "local_failure",
        "timeout",
        "too_slow",
        "total_timeout",
    ];

    /// Whether another attempt may end otherwise. The resolver has tried again itself.
    pub(super) fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::ConnectFailure
                | Self::ConnectTimeout
                | Self::Timeout
                | Self::TotalTimeout
                | Self::BodyCut
                | Self::LocalFailure
                | Self::HttpStatus(408 | 425 | 429 | 500..=599)
        )
    }

    /// Whether it looks the same when our own network is down.
    pub(super) fn may_be_ours(self) -> bool {
        matches!(
            self,
            Self::DnsUnknown
                | Self::DnsFailure
                | Self::DnsTimeout
                | Self::ConnectFailure
                | Self::ConnectTimeout
                | Self::Timeout
                | Self::TotalTimeout
                | Self::LocalFailure
        )
    }
}

impl fmt::Display for FetchReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidUrl => "invalid_url",
            Self::SchemeRefused => "scheme_refused",
            Self::PrivateAddress => "private_address",
            Self::DnsUnknown => "dns_unknown",
            Self::DnsFailure => "dns_failure",
            Self::DnsTimeout => "dns_timeout",
            Self::ConnectFailure => "connect_failure",
            Self::ConnectTimeout => "connect_timeout",
            Self::Timeout => "timeout",
            Self::TotalTimeout => "total_timeout",
            Self::TooSlow => "too_slow",
            Self::TlsExpired => "tls_expired",
            Self::TlsWrongHost => "tls_wrong_host",
            Self::TlsUnknownIssuer => "tls_unknown_issuer",
            Self::TlsBadCertificate => "tls_bad_certificate",
            Self::TlsFailure => "tls_failure",
            Self::HttpStatus(code) => return write!(f, "http_{code}"),
            Self::TooManyRedirects => "too_many_redirects",
            Self::OptedOut => "opted_out",
            Self::Encoded => "encoded",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyCut => "body_cut",
            Self::EmptyBody => "empty_body",
            Self::HeadersTooLarge => "headers_too_large",
            Self::Protocol => "protocol",
            Self::LocalFailure => "local_failure",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::FetchReason;

    #[test]
    fn what_is_tried_again_at_once_is_tried_again_later() {
        let codes = (100..=599).map(FetchReason::HttpStatus);
        let others = [
            FetchReason::BodyCut,
            FetchReason::ConnectFailure,
            FetchReason::ConnectTimeout,
            FetchReason::LocalFailure,
            FetchReason::Timeout,
            FetchReason::TotalTimeout,
        ];
        for reason in codes.chain(others).filter(|reason| reason.is_retryable()) {
            let name = reason.to_string();
            let name = if name.starts_with("http_5") { "http_5xx" } else { &name };
            assert!(FetchReason::TRANSIENT.contains(&name), "{reason}");
        }
    }
}
