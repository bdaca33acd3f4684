use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What a [`WebServer`] does when it is asked for a path.
#[derive(Debug, Clone)]
pub enum WebAnswer {
    /// 200 with this body.
    Body(Vec<u8>),
    /// What servers of files do: the bytes of the range that was asked for, and none for `HEAD`.
    File(Vec<u8>),
    /// This status, these headers, this body. The length is right.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// 200, and a length that is less than the body's.
    Overlong(Vec<u8>, usize),
    /// 200, a length of so many bytes more than the body has, and the end of the connection behind it.
    Cut(Vec<u8>, usize),
    /// One byte of a long body at a time, with a pause after each.
    Dripping(Duration),
    /// A body without end, as fast as it is read.
    Endless,
    /// Headers without end, as fast as they are read.
    EndlessHead,
    /// Nothing, ever. The connection stays open.
    Silence,
    /// Bytes that are no HTTP.
    Noise,
    /// The first so many requests get the first answer, later ones the second.
    Then(usize, Box<WebAnswer>, Box<WebAnswer>),
}

/// An HTTP server on this machine that does what hosts on the Internet do: most of it wrong.
#[derive(Debug)]
pub struct WebServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<HashMap<String, WebAnswer>>,
    requests: Mutex<HashMap<String, usize>>,
    is_closed: AtomicBool,
}

impl WebServer {
    /// Starts a server that knows no path.
    ///
    /// # Panics
    /// When there is no port left.
    pub fn start() -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST)
    }

    /// Starts a server on another address of this machine, all of which begin with 127.
    ///
    /// # Panics
    /// When there is no port left.
    pub fn start_on(address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a port of this machine is free");
        let address = listener.local_addr().expect("the listener is bound");
        let shared = Arc::<Shared>::default();
        let server = Self { address, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if shared.is_closed.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&shared);
                // A client that goes away in the middle is what some tests are about.
                thread::spawn(move || drop(serve(connection, &shared)));
            }
        });
        server
    }

    /// Says what happens at a path, which begins with a slash. Unknown ones are answered with 404.
    pub fn answer(&self, path: &str, answer: WebAnswer) {
        self.shared.answers.lock().expect("no test panics within").insert(path.to_owned(), answer);
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How often a path was asked for.
    pub fn num_requests(&self, path: &str) -> usize {
        self.shared.requests.lock().expect("no test panics within").get(path).copied().unwrap_or(0)
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(connection: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut lines = BufReader::new(connection.try_clone()?).lines();
    let Some(request) = lines.next().transpose()? else { return Ok(()) };
    let mut range = None;
    while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        let ends = line.strip_prefix("range: bytes=").and_then(|ends| ends.split_once('-'));
        range = ends.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?))).or(range);
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let number = {
        let mut requests = shared.requests.lock().expect("no test panics within");
        let count = requests.entry(path.clone()).or_default();
        *count += 1;
        *count - 1
    };
    let mut answer = shared.answers.lock().expect("no test panics within").get(&path).cloned();
    while let Some(WebAnswer::Then(first, before, after)) = answer {
        answer = Some(if number < first { *before } else { *after });
    }
    let answer = match answer.unwrap_or_else(|| WebAnswer::Whole(404, Vec::new(), b"gone".to_vec())) {
        WebAnswer::File(file) => of_file(&file, range),
        answer => answer,
    };
    if let WebAnswer::Whole(status, headers, body) = &answer
        && request.starts_with("HEAD ")
    {
        return (&connection).write_all(head(*status, body.len(), headers).as_bytes());
    }
    respond(connection, answer, shared)
}

/// Bytes of a file, from the first to the last.
fn of_file(file: &[u8], range: Option<(usize, usize)>) -> WebAnswer {
    match range {
        None => WebAnswer::Whole(200, Vec::new(), file.to_vec()),
        Some((first, _)) if first >= file.len() => WebAnswer::Whole(416, Vec::new(), Vec::new()),
        Some((first, last)) => {
            let last = last.min(file.len() - 1);
            let range = format!("bytes {first}-{last}/{}", file.len());
            WebAnswer::Whole(206, vec![("Content-Range", range)], file[first..=last].to_vec())
        }
    }
}

fn head(status: u16, length: usize, headers: &[(&str, String)]) -> String {
    let mut head = format!("HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: {length}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}

fn respond(mut connection: TcpStream, answer: WebAnswer, shared: &Shared) -> std::io::Result<()> {
    let is_open = || !shared.is_closed.load(Ordering::SeqCst);
    match answer {
        WebAnswer::Body(body) => {
            connection.write_all(head(200, body.len(), &[]).as_bytes())?;
            connection.write_all(&body)
        }
        WebAnswer::Whole(status, headers, body) => {
            connection.write_all(head(status, body.len(), &headers).as_bytes())?;
            connection.write_all(&body)
        }
        WebAnswer::Cut(body, missing) => {
            connection.write_all(head(200, body.len() + missing, &[]).as_bytes())?;
            connection.write_all(&body)
        }
        WebAnswer::Overlong(body, length) => {
            connection.write_all(head(200, length, &[]).as_bytes())?;
            connection.write_all(&body)
        }
        WebAnswer::EndlessHead => {
            connection.write_all(b"HTTP/1.1 200 OK\r\n")?;
            while is_open() {
                connection.write_all(b"X-More: and more of the same\r\n")?;
            }
            Ok(())
        }
        WebAnswer::Dripping(pause) => {
            connection.write_all(head(200, 5000, &[]).as_bytes())?;
            while is_open() {
                connection.write_all(b"x")?;
                thread::sleep(pause);
            }
            Ok(())
        }
        WebAnswer::Endless => {
            connection.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            while is_open() {
                connection.write_all(&[b'x'; 1 << 14])?;
            }
            Ok(())
        }
        WebAnswer::Silence => {
            while is_open() {
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }
        WebAnswer::Noise => connection.write_all(b"\x15\x03\x01 this is no HTTP\r\n\r\n"),
        WebAnswer::File(_) | WebAnswer::Then(..) => unreachable!("resolved before"),
    }
}
