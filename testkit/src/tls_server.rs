use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// What a [`TlsServer`] shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// One for 127.0.0.1 and localhost, by the authority in [`TlsServer::authority`].
    Good,
    /// One that nobody but itself vouches for.
    SelfSigned,
    /// One by the authority, for another host.
    OtherHost,
    /// One by the authority, of long ago.
    Expired,
}

/// A request as it reached a [`TlsServer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsRequest {
    /// Its path.
    pub path: String,
    /// Number of the connection it came over, counted from 0.
    pub connection: usize,
    /// Whether it came over HTTP/2.
    pub is_http2: bool,
}

/// An HTTPS server on this machine, for HTTP/1.1 and 2, with an authority of its own.
pub struct TlsServer {
    address: SocketAddr,
    folder: TempDir,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    bodies: Mutex<HashMap<String, Bytes>>,
    requests: Mutex<Vec<TlsRequest>>,
}

impl TlsServer {
    /// Starts a server that knows no path.
    ///
    /// # Panics
    /// If there is no port, thread or folder to be had.
    pub fn start(certificate: Certificate) -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let config = config(certificate, &folder.path().join("authority.pem"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("the system has an event loop to spare");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a port to spare");
        listener.set_nonblocking(true).expect("every socket can be made so");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::<Shared>::default();
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("it is not blocking");
                tokio::select! {
                    () = serve(listener, TlsAcceptor::from(Arc::new(config)), serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, folder, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// Says what a path gives. Unknown ones are answered with 404.
    pub fn answer(&self, path: &str, body: impl Into<Bytes>) {
        lock(&self.shared.bodies).insert(path.to_owned(), body.into());
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// File with the certificate of its authority, for `SSL_CERT_FILE`.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<TlsRequest> {
        lock(&self.shared.requests).clone()
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Makes an authority and a certificate.
fn config(certificate: Certificate, authority_file: &Path) -> ServerConfig {
    let key = || KeyPair::generate().expect("keys can be made");
    let mut params = CertificateParams::new(Vec::new()).expect("no name is a valid list of names");
    // Authorities of the same name would be tried for each other's certificates.
    params.distinguished_name.push(DnType::CommonName, format!("authority for {certificate:?}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, key()).expect("an authority signs itself");
    std::fs::write(authority_file, authority.pem()).expect("the folder was just made");

    let hosts = match certificate {
        Certificate::OtherHost => vec!["other.example".to_owned()],
        _ => vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
    };
    let mut params = CertificateParams::new(hosts).expect("these are names");
    if certificate == Certificate::Expired {
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    }
    let key = key();
    let signed = match certificate {
        Certificate::SelfSigned => params.self_signed(&key),
        _ => params.signed_by(&key, &authority),
    };
    let chain = vec![signed.expect("the parameters are complete").der().clone()];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("the provider knows them").with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).expect("the key is the certificate's");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    for connection in 0.. {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            // A client that does not trust the certificate goes away here.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = shared.answer(connection, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let server = auto::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

impl Shared {
    fn answer(&self, connection: usize, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let body = lock(&self.bodies).get(&path).cloned();
        let is_http2 = request.version() == Version::HTTP_2;
        lock(&self.requests).push(TlsRequest { path, connection, is_http2 });
        let status = if body.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
        let answer = Response::builder().status(status).body(Full::new(body.unwrap_or_default()));
        answer.expect("a status makes a valid head")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics within")
}
