//! As much of a websocket (RFC 6455) as `kubectl` uses: binary messages whose first byte is their channel.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use runtime_tests::connect;

pub(crate) struct WebSocket(TcpStream);

impl WebSocket {
    /// Opens the `http://HOST:PORT/PATH` that the runtime gave, with a query.
    pub(crate) fn open(url: &str, query: &str) -> io::Result<Self> {
        let (host, path) = url
            .trim_start_matches("http://")
            .split_once('/')
            .ok_or_else(|| io::Error::other(url.to_owned()))?;
        let mut stream = connect(host)?;
        write!(
            stream,
            "GET /{path}{query} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Origin: http://{host}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        )?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        match head.starts_with(b"HTTP/1.1 101 ") {
            true => Ok(Self(stream)),
            false => Err(io::Error::other(
                String::from_utf8_lossy(&head).into_owned(),
            )),
        }
    }

    /// Sends to a channel. A client masks what it sends; with zeros that changes nothing.
    pub(crate) fn send(&mut self, channel: u8, data: &[u8]) -> io::Result<()> {
        let length = u8::try_from(data.len() + 1).expect("tests send little");
        assert!(length < 126, "tests send little");
        let head = [0x82, 0x80 | length, 0, 0, 0, 0, channel];
        self.0.write_all(&[&head[..], data].concat())
    }

    /// The next message and its channel; `None` at the end.
    pub(crate) fn receive(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        loop {
            let mut head = [0; 2];
            self.0.read_exact(&mut head)?;
            let length = match head[1] & 0x7f {
                126 => self.number(2)?,
                127 => self.number(8)?,
                short => usize::from(short),
            };
            let mut data = vec![0; length];
            self.0.read_exact(&mut data)?;
            match head[0] & 0x0f {
                8 => return Ok(None),
                1 | 2 if !data.is_empty() => return Ok(Some((data.remove(0), data))),
                _ => {}
            }
        }
    }

    fn number(&mut self, bytes: usize) -> io::Result<usize> {
        let mut buffer = [0; 8];
        self.0.read_exact(&mut buffer[8 - bytes..])?;
        Ok(u64::from_be_bytes(buffer) as usize)
    }

    /// What arrives in a channel until these words, or until the end.
    pub(crate) fn read_until(&mut self, wanted: u8, words: &str) -> io::Result<String> {
        let mut text = String::new();
        while let Some((channel, data)) = self.receive()? {
            if channel == wanted {
                text += &String::from_utf8_lossy(&data);
            }
            if text.contains(words) {
                break;
            }
        }
        Ok(text)
    }
}
