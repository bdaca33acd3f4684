use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use fastclip_shards::StoreOptions;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, RANGE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{oneshot, watch};

use crate::cloud_server::options_of;

const BUCKET: &str = "bucket";
const ACCESS_KEY: &str = "an-access-key";
const SECRET_KEY: &str = "a-secret-key";

/// What goes wrong with an answer of an [`S3Server`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Fault {
    /// The server answers 500 and does nothing.
    InternalError,
    /// The server answers 403, as for lack of rights, and does nothing.
    Denied,
    /// After so many bytes of the body the connection breaks.
    CutAfter(usize),
    /// The answer lacks so many bytes at its end, and its header agrees with that.
    ShorterBy(usize),
    /// The body comes in pieces of so many bytes, each sent for itself.
    InPieces(usize),
    /// The body comes in pieces of so many bytes, with a pause before each.
    Slowly(usize, Duration),
    /// No answer ever comes. The connection stays open.
    Silence,
}

/// A request as it reached an [`S3Server`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Request {
    /// Number of the request, counted from 0.
    pub number: usize,
    /// Whether something is to be read: an object, a part of one, or a list.
    pub is_get: bool,
    /// Path with the bucket.
    pub path: String,
    /// The range asked for, as the header has it.
    pub range: Option<String>,
}

type Rule = dyn FnMut(&S3Request) -> Option<S3Fault> + Send;

struct State {
    rule: Box<Rule>,
    requests: Vec<S3Request>,
}

/// A real S3 server over loopback, with one bucket in a folder of its own. Signatures are checked.
///
/// It is s3s-fs in a thread of this process; dropping it joins the thread and removes the folder.
pub struct S3Server {
    folder: TempDir,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl S3Server {
    /// Name of its threads, for a test that counts all others.
    pub const THREADS: &str = "s3-server";

    /// Starts a server whose bucket is empty.
    ///
    /// # Panics
    /// If there is no port, thread or folder to be had.
    pub fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("the folder was just made");
        let files = FileSystem::new(folder.path()).expect("the folder was just made");
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let state = Arc::new(Mutex::new(State { rule: Box::new(|_| None), requests: Vec::new() }));

        let runtime = runtime::Builder::new_current_thread().enable_all().thread_name(Self::THREADS).build();
        let runtime = runtime.expect("the system has an event loop to spare");
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)));
        let listener = listener.expect("loopback has a port to spare");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, service, shared) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name(Self::THREADS.to_owned()).spawn(serve);
        let thread = thread.expect("the system has a thread to spare");
        Self { folder, address, state, stop: Some(stop), thread: Some(thread) }
    }

    /// URL of a folder in the bucket.
    pub fn location(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// What a client needs to reach it.
    pub fn options(&self) -> StoreOptions {
        options_of(&self.environment())
    }

    /// The same as the environment of a program.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    /// Where an object lies on disk, for a test that copies or damages it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(BUCKET).join(name)
    }

    /// From now on, asks this rule what is to go wrong with each request.
    pub fn inject(&self, rule: impl FnMut(&S3Request) -> Option<S3Fault> + Send + 'static) {
        self.state().rule = Box::new(rule);
    }

    /// Every request so far, faulty or not.
    pub fn requests(&self) -> Vec<S3Request> {
        self.state().requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("rules of tests do not panic")
    }
}

impl fmt::Debug for S3Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

async fn serve(listener: TcpListener, service: S3Service, state: Arc<Mutex<State>>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        // Otherwise a small piece waits 40 ms for the client to acknowledge the one before it.
        let _ = socket.set_nodelay(true);
        let (service, state) = (service.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            // What has to end the connection without an answer says so here.
            let (cut, mut is_cut) = watch::channel(false);
            let answer =
                service_fn(|request| answer(request, service.clone(), Arc::clone(&state), cut.clone()));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), answer);
            tokio::select! {
                _ = connection => {}
                _ = is_cut.wait_for(|is_cut| *is_cut) => {}
            }
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    service: S3Service,
    state: Arc<Mutex<State>>,
    cut: watch::Sender<bool>,
) -> Result<Response<Body>, Infallible> {
    let fault = {
        let mut state = state.lock().expect("rules of tests do not panic");
        let seen = S3Request {
            number: state.requests.len(),
            is_get: request.method() == Method::GET,
            path: request.uri().path().to_owned(),
            range: request
                .headers()
                .get(RANGE)
                .map(|range| String::from_utf8_lossy(range.as_bytes()).into_owned()),
        };
        let fault = (state.rule)(&seen);
        state.requests.push(seen);
        fault
    };
    match fault {
        Some(S3Fault::InternalError) => return Ok(plain(StatusCode::INTERNAL_SERVER_ERROR)),
        Some(S3Fault::Denied) => return Ok(plain(StatusCode::FORBIDDEN)),
        Some(S3Fault::Silence) => std::future::pending::<()>().await,
        _ => {}
    }
    let response = match service.call(request.map(Body::from)).await {
        Ok(response) => response,
        Err(error) => {
            let _: HttpError = error;
            return Ok(plain(StatusCode::BAD_GATEWAY));
        }
    };
    Ok(match fault {
        None | Some(S3Fault::InternalError | S3Fault::Denied | S3Fault::Silence) => response,
        Some(fault) => spoil(response, fault, cut).await,
    })
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Answers with the same header, except for the length where the fault says so, and another body.
async fn spoil(response: Response<Body>, fault: S3Fault, cut: watch::Sender<bool>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let whole = body.collect().await.map(|whole| whole.to_bytes()).unwrap_or_default();
    let body = match fault {
        S3Fault::CutAfter(num_bytes) => {
            let start = whole.slice(..num_bytes.min(whole.len()));
            let pieces = stream::unfold((Some(start), cut), |(start, cut)| async move {
                match start {
                    Some(start) => Some((Ok::<_, Infallible>(Frame::data(start)), (None, cut))),
                    None => {
                        // Behind what was handed to the connection, which may still have to send it.
                        tokio::task::yield_now().await;
                        let _ = cut.send(true);
                        std::future::pending().await
                    }
                }
            });
            Body::http_body_unsync(StreamBody::new(pieces))
        }
        S3Fault::ShorterBy(num_bytes) => {
            let kept = whole.slice(..whole.len().saturating_sub(num_bytes));
            head.headers.insert(CONTENT_LENGTH, kept.len().into());
            Body::from(kept)
        }
        S3Fault::InPieces(num_bytes) | S3Fault::Slowly(num_bytes, _) => {
            let pieces: Vec<Bytes> = (0..whole.len())
                .step_by(num_bytes)
                .map(|start| whole.slice(start..(start + num_bytes).min(whole.len())))
                .collect();
            let pieces = stream::unfold(pieces.into_iter(), move |mut pieces| async move {
                match fault {
                    S3Fault::Slowly(_, pause) => tokio::time::sleep(pause).await,
                    _ => tokio::task::yield_now().await,
                }
                pieces.next().map(|piece| (Ok::<_, Infallible>(Frame::data(piece)), pieces))
            });
            Body::http_body_unsync(StreamBody::new(pieces))
        }
        S3Fault::InternalError | S3Fault::Denied | S3Fault::Silence => unreachable!("these have no body"),
    };
    Response::from_parts(head, body)
}
