use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};

/// Largest question that comes over UDP.
const MAX_BYTES: usize = 4096;

/// What a [`DnsServer`] says of a name.
#[derive(Debug, Clone)]
pub enum DnsAnswer {
    /// It has these addresses, for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// There is no such name.
    Unknown,
    /// The server could not find out.
    Failure,
    /// Nothing, ever.
    Silence,
    /// The first so many questions get the first answer, later ones the second.
    Then(usize, Box<DnsAnswer>, Box<DnsAnswer>),
}

/// A DNS server over UDP on this machine. Names that it was not told about do not exist.
///
/// Dropping it closes the port: who asks then finds nobody there.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<HashMap<String, DnsAnswer>>,
    otherwise: Mutex<Option<DnsAnswer>>,
    /// Ids of the messages that asked for a name. One whose answer is late is sent again, with the same id.
    questions: Mutex<HashMap<String, Vec<u16>>>,
    is_closed: AtomicBool,
}

impl DnsServer {
    /// Starts a server that knows no name.
    ///
    /// # Panics
    /// When there is no port or thread left.
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port of this machine is free");
        let address = socket.local_addr().expect("the socket is bound");
        let shared = Arc::<Shared>::default();
        let answering = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut bytes = [0; MAX_BYTES];
            while let Ok((length, asker)) = socket.recv_from(&mut bytes) {
                if answering.is_closed.load(Ordering::SeqCst) {
                    return;
                }
                if let Some(answer) = answering.answer(&bytes[..length]) {
                    // An asker that is gone is not this server's affair.
                    let _ = socket.send_to(&answer, asker);
                }
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says what a name is, which has no dot at its end.
    pub fn answer(&self, name: &str, answer: DnsAnswer) {
        lock(&self.shared.answers).insert(name.to_owned(), answer);
    }

    /// Says what all other names are.
    pub fn answer_otherwise(&self, answer: DnsAnswer) {
        *lock(&self.shared.otherwise) = Some(answer);
    }

    /// How often a name was asked for, whatever kind of address was wanted. A question that is sent again is the same one.
    pub fn num_questions(&self, name: &str) -> usize {
        lock(&self.shared.questions).get(name).map_or(0, Vec::len)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for questions.
        if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
            let _ = socket.send_to(&[], self.address);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The bytes to send, if any.
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        let name = query.name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let number = {
            let mut questions = lock(&self.questions);
            let ids = questions.entry(name.clone()).or_default();
            let id = question.metadata.id;
            ids.iter().position(|known| *known == id).unwrap_or_else(|| {
                ids.push(id);
                ids.len() - 1
            })
        };
        let mut answer = lock(&self.answers).get(&name).cloned();
        answer = answer.or_else(|| lock(&self.otherwise).clone());
        while let Some(DnsAnswer::Then(first, before, after)) = answer {
            answer = Some(if number < first { *before } else { *after });
        }
        let mut message = Message::response(question.metadata.id, question.metadata.op_code);
        message.metadata.recursion_desired = question.metadata.recursion_desired;
        message.metadata.recursion_available = true;
        message.add_query(query.clone());
        match answer.unwrap_or(DnsAnswer::Unknown) {
            DnsAnswer::Addresses(addresses, seconds) => {
                for address in addresses {
                    let (kind, data) = match address {
                        IpAddr::V4(address) => (RecordType::A, RData::A(A(address))),
                        IpAddr::V6(address) => (RecordType::AAAA, RData::AAAA(AAAA(address))),
                    };
                    if kind == query.query_type {
                        message.add_answer(Record::from_rdata(query.name.clone(), seconds, data));
                    }
                }
            }
            DnsAnswer::Unknown => message.metadata.response_code = ResponseCode::NXDomain,
            DnsAnswer::Failure => message.metadata.response_code = ResponseCode::ServFail,
            DnsAnswer::Silence => return None,
            DnsAnswer::Then(..) => unreachable!("resolved before"),
        }
        Some(message.to_vec().expect("a message of few records fits"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics within")
}
