//! A registry that answers whatever a test wants, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// By names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    /// As much as the server takes.
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// More would have come.
    pub(crate) fn is_cut(&self) -> bool {
        self.length() > self.body.len()
    }

    pub(crate) fn length(&self) -> usize {
        let length = self.headers.get("content-length");
        length.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// What the server does with it.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The Content-Length that is told.
    length: usize,
    hang: bool,
    gone: bool,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Answer {
            status,
            headers: Vec::new(),
            length: body.len(),
            body,
            hang: false,
            gone: false,
        }
    }

    /// Drops the connection without a word.
    pub(crate) fn gone() -> Self {
        Answer {
            gone: true,
            ..Answer::new(200, "")
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Tells another length than the body has.
    pub(crate) fn claiming(self, length: usize) -> Self {
        Answer { length, ..self }
    }

    /// Sends so much of the body, then drops the connection.
    pub(crate) fn cut(mut self, at: usize) -> Self {
        self.body.truncate(at);
        self
    }

    /// Says nothing, until the client goes.
    pub(crate) fn hang() -> Self {
        Answer {
            hang: true,
            ..Answer::new(200, "")
        }
    }
}

/// A server that lives as long as its test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn new(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1", answer)
    }

    /// On another address of the loopback interface, which is another host for a client.
    pub(crate) fn at(
        host: &str,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::taking(usize::MAX, host, answer)
    }

    /// Takes only so many bytes of a body.
    pub(crate) fn taking(
        most: usize,
        host: &str,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let ending = Arc::new(AtomicBool::new(false));
        let (seen, end, answer) = (Arc::clone(&requests), Arc::clone(&ending), Arc::new(answer));
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || serve(stream, most, &seen, &*answer));
            }
        });
        Server {
            address,
            requests,
            ending,
            thread: Some(thread),
        }
    }

    /// Everything that was asked.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The requests whose path contains this.
    pub(crate) fn asked(&self, part: &str) -> Vec<Request> {
        self.requests()
            .into_iter()
            .filter(|request| request.path.contains(part))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One request for each connection. What is no HTTP (the client tries TLS first) is closed.
fn serve(
    stream: TcpStream,
    most: usize,
    seen: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request) -> Answer,
) {
    let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
    let Some(request) = read(&mut reader, most) else {
        return;
    };
    seen.lock().unwrap().push(request.clone());
    let answer = answer(&request);
    if answer.gone {
        return;
    }
    if answer.hang {
        let _ = reader.read(&mut [0]);
        return;
    }
    let mut head = format!(
        "HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {}\r\n",
        answer.status, answer.length
    );
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = stream;
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    if request.method != "HEAD" {
        let _ = stream.write_all(&answer.body);
    }
    let _ = stream.shutdown(Shutdown::Write);
    let _ = reader.read(&mut [0]);
}

fn read(reader: &mut BufReader<TcpStream>, most: usize) -> Option<Request> {
    if !reader.fill_buf().ok()?.first()?.is_ascii_uppercase() {
        return None;
    }
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            line.split_once(": ")
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        })
        .collect();
    let mut request = Request {
        method,
        path,
        headers,
        body: Vec::new(),
    };
    let length = request.length().min(most) as u64;
    reader.take(length).read_to_end(&mut request.body).ok()?;
    Some(request)
}
