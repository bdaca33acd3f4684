use std::net::Ipv4Addr;
use std::num::NonZeroUsize;

use fastclip_testkit::{Certificate, DnsAnswer, DnsServer, TlsServer, WebAnswer, WebServer};

use super::*;

/// Longer than anything takes that comes at all, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// For what never comes.
const IMPATIENCE: Duration = Duration::from_millis(300);

/// Another host, as far as a client can tell.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn options() -> FetchOptions {
    FetchOptions {
        connect_timeout: PATIENCE,
        read_timeout: PATIENCE,
        total_timeout: PATIENCE,
        max_bytes: 10_000,
        max_redirects: 3,
        retries: 0,
        user_agent_token: Some("fastclip".to_owned()),
        allow_private_hosts: true,
        ..FetchOptions::default()
    }
}

fn fetcher(options: FetchOptions) -> Fetcher {
    Fetcher::new(options, Progress::silent(), Stop::default()).unwrap()
}

/// Fetches a single row, the last one.
async fn fetch(options: FetchOptions, url: &str) -> Result<Bytes, FetchFailure> {
    let fetcher = fetcher(options);
    let _row = fetcher.row();
    fetcher.end_rows();
    failed(fetcher.fetch(url, &|| true).await).map(|fetched| fetched.bytes)
}

/// Insists that the network is not to blame.
fn failed(ended: Result<Fetched, Unfetched>) -> Result<Fetched, FetchFailure> {
    ended.map_err(|ended| match ended {
        Unfetched::Failed(failure) => failure,
        Unfetched::Offline(outage) => panic!("{outage}"),
        Unfetched::Skipped => panic!("nobody stopped the run"),
    })
}

/// The URL of a server on this machine, by a name that is to be looked up.
fn named(url: &str, name: &str) -> String {
    url.replace("127.0.0.1", name)
}

fn dns(server: &DnsServer) -> DnsOptions {
    DnsOptions { servers: vec![server.address()], timeout: PATIENCE, ..DnsOptions::default() }
}

fn here() -> DnsAnswer {
    DnsAnswer::Addresses(vec!["127.0.0.1".parse().unwrap()], 60)
}

fn redirect(to: &str) -> WebAnswer {
    WebAnswer::Whole(302, vec![("Location", to.to_owned())], Vec::new())
}

fn with_header(name: &'static str, value: &str) -> WebAnswer {
    WebAnswer::Whole(200, vec![(name, value.to_owned())], b"an image".to_vec())
}

#[tokio::test]
async fn every_way_to_fail_has_a_reason_of_its_own() {
    let server = WebServer::start();
    for (path, answer, expected) in [
        ("/silence", WebAnswer::Silence, "timeout"),
        ("/dripping", WebAnswer::Dripping(IMPATIENCE / 10), "too_slow"),
        ("/head", WebAnswer::EndlessHead, "headers_too_large"),
        ("/endless", WebAnswer::Endless, "body_too_large"),
        ("/announced", WebAnswer::Cut(Vec::new(), 1 << 30), "body_too_large"),
        ("/cut", WebAnswer::Cut(b"half".to_vec(), 100), "body_cut"),
        ("/noise", WebAnswer::Noise, "protocol"),
        ("/empty", WebAnswer::Body(Vec::new()), "empty_body"),
        ("/nothing", WebAnswer::Whole(204, Vec::new(), Vec::new()), "http_204"),
        ("/error", WebAnswer::Whole(500, Vec::new(), Vec::new()), "http_500"),
        ("/loop", redirect("/loop"), "too_many_redirects"),
        ("/nowhere", WebAnswer::Whole(301, Vec::new(), Vec::new()), "protocol"),
        ("/file", redirect("file:///etc/passwd"), "scheme_refused"),
        ("/packed", with_header("Content-Encoding", "gzip"), "encoded"),
        ("/noai", with_header("X-Robots-Tag", "noai"), "opted_out"),
        ("/for-us", with_header("X-Robots-Tag", "fastclip: noindex"), "opted_out"),
    ] {
        server.answer(path, answer);
        let read_timeout = match path {
            "/silence" => IMPATIENCE,
            // The rate is judged when this is over. No gap between two bytes may be as long.
            "/dripping" => 10 * IMPATIENCE,
            _ => PATIENCE,
        };
        let options = FetchOptions { read_timeout, ..options() };
        let failure = fetch(options, &server.url(path)).await.unwrap_err();
        assert_eq!(failure.reason.to_string(), expected, "{path}: {failure:?}");
    }
    for (url, expected) in [
        (server.url("/unknown"), "http_404"),
        (server.url("/silence").replace("http:", "https:").replace("silence", "noise"), "tls_failure"),
        ("not a URL".to_owned(), "invalid_url"),
        (String::new(), "invalid_url"),
        ("ftp://127.0.0.1/a.jpg".to_owned(), "scheme_refused"),
        ("http://does-not-exist.invalid/".to_owned(), "dns_unknown"),
        ("http://127.0.0.1:1/".to_owned(), "connect_failure"),
    ] {
        let failure = fetch(options(), &url).await.unwrap_err();
        assert_eq!(failure.reason.to_string(), expected, "{url}: {failure:?}");
    }
    // What drips fast enough is ended by the limit of the whole.
    let lenient = FetchOptions { min_bytes_per_second: 0, total_timeout: 3 * IMPATIENCE, ..options() };
    let failure = fetch(lenient, &server.url("/dripping")).await.unwrap_err();
    assert_eq!(failure.reason, FetchReason::TotalTimeout, "{failure:?}");
    // The answers that are not refused, so that the table above cannot be right by accident.
    server.answer("/found", WebAnswer::Body(b"an image".to_vec()));
    server.answer("/for-others", with_header("X-Robots-Tag", "otherbot: noai"));
    server.answer("/moved", redirect("/found"));
    for path in ["/found", "/for-others", "/moved"] {
        assert_eq!(fetch(options(), &server.url(path)).await.unwrap(), "an image", "{path}");
    }
}

#[tokio::test]
async fn private_addresses_are_not_asked_by_whatever_way() {
    let server = WebServer::start();
    server.answer("/image", WebAnswer::Body(b"secret".to_vec()));
    let options = || FetchOptions { allow_private_hosts: false, ..options() };
    let url = server.url("/image");
    for url in [
        url.clone(),
        url.replace("127.0.0.1", "localhost"),
        url.replace("127.0.0.1", "[::1]"),
        url.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
        url.replace("127.0.0.1", "2130706433"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ] {
        let failure = fetch(options(), &url).await.unwrap_err();
        assert_eq!(failure.reason, FetchReason::PrivateAddress, "{url}: {failure:?}");
    }
    assert_eq!(server.num_requests("/image"), 0);
}

#[tokio::test]
async fn a_redirect_is_checked_like_the_url_itself() {
    // The server is on an address of this machine that is allowed; all others are not.
    let (server, names) = (WebServer::start_on(NEIGHBOUR), DnsServer::start());
    let secret = WebServer::start();
    secret.answer("/", WebAnswer::Body(b"secret".to_vec()));
    names.answer("inside.example.org", here());
    names.answer("inside6.example.org", DnsAnswer::Addresses(vec!["::1".parse().unwrap()], 60));
    let port = secret.url("/").rsplit(':').next().unwrap().to_owned();
    let options = || FetchOptions {
        allow_private_hosts: false,
        allowed_networks: vec!["127.0.0.2/32".parse().unwrap()],
        dns: dns(&names),
        ..options()
    };
    let first = server.url("/start");
    for host in [
        "127.0.0.1",
        "127.1",
        "0177.0.0.1",
        "2130706433",
        "0x7f000001",
        "0",
        "169.254.169.254",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:2]",
        "[fd00:ec2::254]",
        "localhost",
        "inside.example.org",
        "inside6.example.org",
    ] {
        server.answer("/start", redirect(&format!("http://{host}:{port}")));
        let failure = fetch(options(), &first).await.unwrap_err();
        assert_eq!(failure.reason, FetchReason::PrivateAddress, "{host}: {failure:?}");
    }
    assert_eq!(secret.num_requests("/"), 0);
    server.answer("/start", redirect("/found"));
    server.answer("/found", WebAnswer::Body(b"an image".to_vec()));
    assert_eq!(fetch(options(), &first).await.unwrap(), "an image");
}

#[tokio::test]
async fn certificates_that_prove_nothing_have_reasons_of_their_own() {
    for (certificate, expected) in [
        // The authority is unknown here, so even the best certificate proves nothing.
        (Certificate::Good, FetchReason::TlsUnknownIssuer),
        (Certificate::SelfSigned, FetchReason::TlsUnknownIssuer),
    ] {
        let server = TlsServer::start(certificate);
        server.answer("/image", "an image");
        let failure = fetch(options(), &server.url("/image")).await.unwrap_err();
        assert_eq!(failure.reason, expected, "{certificate:?}: {failure:?}");
        assert!(server.requests().is_empty());
    }
}

#[tokio::test]
async fn names_that_have_no_address_say_why() {
    let (server, names) = (WebServer::start(), DnsServer::start());
    server.answer("/image", WebAnswer::Body(b"an image".to_vec()));
    names.answer("good.example.org", here());
    names.answer("broken.example.org", DnsAnswer::Failure);
    names.answer("silent.example.org", DnsAnswer::Silence);
    names.answer("flaky.example.org", DnsAnswer::Then(1, Box::new(DnsAnswer::Failure), Box::new(here())));
    let options = |timeout| FetchOptions { dns: DnsOptions { timeout, ..dns(&names) }, ..options() };
    for (name, timeout, expected) in [
        ("unknown.example.org", PATIENCE, FetchReason::DnsUnknown),
        ("broken.example.org", PATIENCE, FetchReason::DnsFailure),
        ("silent.example.org", IMPATIENCE, FetchReason::DnsTimeout),
    ] {
        let failure = fetch(options(timeout), &named(&server.url("/image"), name)).await.unwrap_err();
        assert_eq!(failure.reason, expected, "{name}: {failure:?}");
    }
    assert_eq!(names.num_questions("broken.example.org"), 2, "asked once more, after a pause");
    for name in ["good.example.org", "flaky.example.org"] {
        assert_eq!(fetch(options(PATIENCE), &named(&server.url("/image"), name)).await.unwrap(), "an image");
    }
}

#[tokio::test]
async fn a_name_is_looked_up_once_for_all_its_images() {
    let (server, names) = (WebServer::start(), DnsServer::start());
    server.answer("/image", WebAnswer::Body(b"an image".to_vec()));
    // 0 seconds are made a few, for the images of a host come in a row.
    let short_lived = DnsAnswer::Addresses(vec!["127.0.0.1".parse().unwrap()], 0);
    names.answer("good.example.org", short_lived);
    names.answer("broken.example.org", DnsAnswer::Failure);
    let fetcher = fetcher(FetchOptions { dns: dns(&names), ..options() });
    let url = named(&server.url("/image"), "good.example.org");
    for ended in futures::future::join_all((0..20).map(|_| fetcher.fetch(&url, &|| true))).await {
        assert_eq!(ended.unwrap().bytes, "an image");
    }
    assert_eq!(names.num_questions("good.example.org"), 1);
    // Nothing follows that could be reached, so that it is clear at once whose failure it is.
    let _row = fetcher.row();
    fetcher.end_rows();
    let broken = named(&server.url("/image"), "broken.example.org");
    for _ in 0..5 {
        let failure = failed(fetcher.fetch(&broken, &|| true).await).unwrap_err();
        assert_eq!(failure.reason, FetchReason::DnsFailure);
    }
    assert_eq!(names.num_questions("broken.example.org"), 2, "asked once more, and then known");
}

#[tokio::test]
async fn a_name_that_changes_its_meaning_is_checked_at_every_use() {
    let names = DnsServer::start();
    let public = || DnsAnswer::Addresses(vec!["192.0.1.1".parse().unwrap()], 0);
    names.answer("rebinding.example.org", DnsAnswer::Then(1, Box::new(public()), Box::new(here())));
    let both = ["127.0.0.1", "192.0.1.1"].map(|address| address.parse().unwrap()).to_vec();
    names.answer("both.example.org", DnsAnswer::Addresses(both, 60));
    let resolver = Resolver::new(&dns(&names), AddressRule::default()).unwrap();
    assert!(resolver.addresses("rebinding.example.org").await.is_ok());
    resolver.forget("rebinding.example.org");
    let private = resolver.addresses("rebinding.example.org").await.unwrap_err();
    assert!(matches!(private, resolver::Unresolved::Private { .. }), "{private}");
    // What the client asks for when it connects is the very same.
    let name = "rebinding.example.org".parse().unwrap();
    let refused = reqwest::dns::Resolve::resolve(&resolver, name).await.err().unwrap();
    assert!(refused.to_string().contains("is private"), "{refused}");
    let allowed: [std::net::IpAddr; 1] = ["192.0.1.1".parse().unwrap()];
    assert_eq!(resolver.addresses("both.example.org").await.unwrap(), allowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_answer_holds_up_nobody_else() {
    let (server, other) = (WebServer::start(), WebServer::start_on(NEIGHBOUR));
    server.answer("/silence", WebAnswer::Silence);
    other.answer("/image", WebAnswer::Body(b"an image".to_vec()));
    let fetcher = Arc::new(fetcher(FetchOptions {
        max_requests: NonZeroUsize::new(4).unwrap(),
        max_requests_per_host: NonZeroUsize::new(3).unwrap(),
        // It does not answer for as long as this test takes.
        connect_timeout: Duration::from_secs(3600),
        read_timeout: Duration::from_secs(3600),
        total_timeout: Duration::from_secs(3600),
        ..options()
    }));
    let mut silent = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (fetcher, url) = (Arc::clone(&fetcher), server.url("/silence"));
        silent.spawn(async move { drop(fetcher.fetch(&url, &|| true).await) });
    }
    while server.num_requests("/silence") < 3 {
        tokio::task::yield_now().await;
    }
    // All other hosts share the one request that is left.
    for _ in 0..20 {
        assert!(fetcher.fetch(&other.url("/image"), &|| true).await.is_ok());
    }
    assert_eq!(server.num_requests("/silence"), 3);
}

#[tokio::test]
async fn waiting_for_others_is_not_the_hosts_failure() {
    let server = WebServer::start();
    server.answer("/large", WebAnswer::Body(vec![7; 1 << 20]));
    // Much longer than the host takes.
    let total_timeout = 10 * IMPATIENCE;
    let fetcher = fetcher(FetchOptions {
        total_timeout,
        max_bytes: 1 << 20,
        body_memory_bytes: 1 << 20,
        max_requests_per_host: NonZeroUsize::new(2).unwrap(),
        ..options()
    });
    let held = fetcher.fetch(&server.url("/large"), &|| true).await.unwrap();
    let url = server.url("/large");
    let mut second = Box::pin(fetcher.fetch(&url, &|| true));
    // Longer than the limit of the whole; the body waits for memory, which is not the host's fault.
    assert!(tokio::time::timeout(total_timeout + IMPATIENCE, &mut second).await.is_err());
    drop(held);
    assert_eq!(second.await.unwrap().bytes.len(), 1 << 20);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_nothing_else() {
    let server = WebServer::start();
    let found = || Box::new(WebAnswer::Body(b"an image".to_vec()));
    let busy = WebAnswer::Whole(429, vec![("Retry-After", "0".to_owned())], Vec::new());
    server.answer("/busy", WebAnswer::Then(2, Box::new(busy), found()));
    let options = || FetchOptions { retries: 2, ..options() };
    assert_eq!(fetch(options(), &server.url("/busy")).await.unwrap(), "an image");
    assert_eq!(server.num_requests("/busy"), 3);
    server.answer("/cut", WebAnswer::Then(1, Box::new(WebAnswer::Cut(b"half".to_vec(), 9)), found()));
    assert_eq!(fetch(options(), &server.url("/cut")).await.unwrap(), "an image");
    assert_eq!(
        fetch(options(), &server.url("/gone")).await.unwrap_err().reason,
        FetchReason::HttpStatus(404)
    );
    assert_eq!(server.num_requests("/gone"), 1);
    let asked = WebAnswer::Whole(503, vec![("Retry-After", "3600".to_owned())], Vec::new());
    server.answer("/tomorrow", asked);
    assert_eq!(
        fetch(options(), &server.url("/tomorrow")).await.unwrap_err().reason,
        FetchReason::HttpStatus(503)
    );
    assert_eq!(server.num_requests("/tomorrow"), 1);
}
