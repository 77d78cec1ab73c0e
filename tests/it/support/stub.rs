//! A real HTTP service on loopback that does what a script says, byte for byte, and keeps a journal of every call.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

/// What the service does with a call.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Replies with a status and a JSON body.
    Json(u16, Value),
    /// Replies with a status, further header lines and a raw body.
    Raw(u16, String, Vec<u8>),
    /// Sends these bytes instead of HTTP.
    Garbage(Vec<u8>),
    /// Reads the call, then cuts the connection.
    Reset,
    /// Reads the call and never answers.
    Hang,
    /// Waits, then answers.
    Slow(Duration, Box<Self>),
    /// Waits until the test says so, then answers.
    Held(Gate, Box<Self>),
}

/// What held answers wait for.
#[derive(Clone, Debug)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Lets go of every answer that it holds, now and later.
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }
}

impl Answer {
    pub(crate) fn ok() -> Self {
        Self::Json(200, serde_json::json!({}))
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Json(status, _) | Self::Raw(status, ..) => Some(*status),
            Self::Slow(_, answer) | Self::Held(_, answer) => answer.status(),
            Self::Garbage(_) | Self::Reset | Self::Hang => None,
        }
    }
}

/// A call as the service saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Value,
    pub(crate) began: Instant,
    /// When the answer was sent, if it was.
    pub(crate) ended: Option<Instant>,
    /// The status that it was to be answered with; none where no HTTP was spoken.
    pub(crate) status: Option<u16>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn fence(&self) -> i64 {
        self.header("hms-fence").parse().unwrap_or(-1)
    }
}

#[derive(Default)]
struct Book {
    journal: Vec<Seen>,
    scripts: HashMap<String, Vec<Answer>>,
    default: HashMap<String, Answer>,
    outage: Option<Answer>,
    in_hand: usize,
    most_in_hand: usize,
    connections: Vec<AbortHandle>,
}

/// The running service.
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    book: Arc<Mutex<Book>>,
    task: Mutex<JoinHandle<()>>,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.lock().unwrap().abort();
    }
}

impl Stub {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let book: Arc<Mutex<Book>> = Arc::default();
        let task = Mutex::new(tokio::spawn(accept(listener, Arc::clone(&book))));
        Self { address, book, task }
    }

    /// The process is gone: connections are cut, new ones refused.
    pub(crate) async fn go_down(&self) {
        let task = std::mem::replace(&mut *self.task.lock().unwrap(), tokio::spawn(async {}));
        task.abort();
        // The port is closed once the task is gone, and with it the listener.
        assert!(task.await.unwrap_err().is_cancelled());
        let mut book = self.book.lock().unwrap();
        book.connections.drain(..).for_each(|connection| connection.abort());
        book.in_hand = 0;
    }

    /// The process is back, at the same address.
    pub(crate) async fn come_back(&self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        *self.task.lock().unwrap() = tokio::spawn(accept(listener, Arc::clone(&self.book)));
    }

    /// Every call gets this answer, until `None`.
    pub(crate) fn outage(&self, answer: Option<Answer>) {
        self.book.lock().unwrap().outage = answer;
    }

    /// Most calls that were in hand at once since the last time somebody asked.
    pub(crate) fn most_in_hand(&self) -> usize {
        let mut book = self.book.lock().unwrap();
        let in_hand = book.in_hand;
        std::mem::replace(&mut book.most_in_hand, in_hand)
    }

    /// The next calls to `path` get these answers, one each.
    pub(crate) fn script(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.book.lock().unwrap().scripts.insert(path.to_owned(), answers.into_iter().collect::<Vec<_>>().into_iter().rev().collect());
    }

    /// All calls to `path` that no script covers get this answer.
    pub(crate) fn always(&self, path: &str, answer: Answer) {
        self.book.lock().unwrap().default.insert(path.to_owned(), answer);
    }

    pub(crate) fn journal(&self) -> Vec<Seen> {
        self.book.lock().unwrap().journal.clone()
    }

    /// Calls to one path.
    pub(crate) fn called(&self, path: &str) -> usize {
        self.book.lock().unwrap().journal.iter().filter(|seen| seen.path == path).count()
    }

    pub(crate) fn calls(&self) -> usize {
        self.book.lock().unwrap().journal.len()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.book.lock().unwrap().journal.iter().map(|seen| seen.path.clone()).collect()
    }
}

async fn accept(listener: TcpListener, book: Arc<Mutex<Book>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let connection = tokio::spawn(serve(stream, Arc::clone(&book))).abort_handle();
        let mut book = book.lock().unwrap();
        book.connections.retain(|connection| !connection.is_finished());
        book.connections.push(connection);
    }
}

async fn serve(mut stream: TcpStream, book: Arc<Mutex<Book>>) {
    let mut buffer = Vec::new();
    while let Some(mut seen) = read_call(&mut stream, &mut buffer).await {
        let place;
        let answer = {
            let mut book = book.lock().unwrap();
            let scripted = book.scripts.get_mut(&seen.path).and_then(Vec::pop);
            let answer = book.outage.clone().or(scripted).or_else(|| book.default.get(&seen.path).cloned()).unwrap_or_else(Answer::ok);
            seen.status = answer.status();
            book.journal.push(seen);
            place = book.journal.len() - 1;
            book.in_hand += 1;
            book.most_in_hand = book.most_in_hand.max(book.in_hand);
            answer
        };
        let goes_on = reply(&mut stream, answer).await;
        {
            let mut book = book.lock().unwrap();
            book.in_hand = book.in_hand.saturating_sub(1);
            book.journal[place].ended = Some(Instant::now());
        }
        if !goes_on {
            return;
        }
    }
}

async fn reply(stream: &mut TcpStream, answer: Answer) -> bool {
    let (status, extra, body) = match answer {
        Answer::Slow(pause, answer) => {
            tokio::time::sleep(pause).await;
            return Box::pin(reply(stream, *answer)).await;
        }
        Answer::Held(gate, answer) => {
            let mut open = gate.0.subscribe();
            let _test_is_over = open.wait_for(|open| *open).await.is_err();
            return Box::pin(reply(stream, *answer)).await;
        }
        Answer::Json(status, body) => (status, "Content-Type: application/json\r\n".to_owned(), body.to_string().into_bytes()),
        Answer::Raw(status, extra, body) => (status, extra, body),
        Answer::Garbage(bytes) => {
            let _ = stream.write_all(&bytes).await;
            return false;
        }
        Answer::Reset => {
            let _ = stream.set_zero_linger();
            return false;
        }
        Answer::Hang => {
            std::future::pending::<()>().await;
            return false;
        }
    };
    let head = format!("HTTP/1.1 {status} X\r\n{extra}Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat()).await.is_ok()
}

async fn read_call(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let head_end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: HashMap<String, String> =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let length: usize = headers.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    while buffer.len() < head_end + 4 + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = serde_json::from_slice(&buffer[head_end + 4..head_end + 4 + length]).unwrap_or(Value::Null);
    buffer.drain(..head_end + 4 + length);
    Some(Seen { path, headers, body, began: Instant::now(), ended: None, status: None })
}
