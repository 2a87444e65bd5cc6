//! What containerd is told without asking: one queue, in order, each event until it has been taken.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use prost::Message;

use crate::poller::{Poller, Token};
use crate::protos::events::{Envelope, ForwardRequest};
use crate::protos::{Any, Timestamp};
use crate::ttrpc::Client;

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
const METHOD: &str = "Forward";
/// How long to wait before containerd is looked for again.
const PAUSE: Duration = Duration::from_millis(200);
/// While containerd is away nothing is started, so that what can wait here is bounded by what runs; this is for out-of-memory events,
/// which a container may cause as often as it likes.
const MANY: usize = 1024;

/// An event on its way.
#[derive(Debug)]
struct Event {
    topic: &'static str,
    at: Timestamp,
    content: Any,
}

/// The queue, and the connection that empties it.
#[derive(Debug)]
pub(crate) struct Events {
    namespace: String,
    /// containerd's ttrpc socket; `None` when nobody wants events.
    address: Option<PathBuf>,
    queue: VecDeque<Event>,
    client: Option<Client>,
    /// The first of the queue has been sent and not been answered.
    under_way: bool,
    retry: Option<Instant>,
}

impl Events {
    /// `address` is TTRPC_ADDRESS.
    pub(crate) fn new(namespace: &str, address: Option<String>) -> Events {
        let path =
            |address: String| PathBuf::from(address.strip_prefix("unix://").unwrap_or(&address));
        Events {
            namespace: namespace.to_owned(),
            address: address.filter(|address| !address.is_empty()).map(path),
            queue: VecDeque::new(),
            client: None,
            under_way: false,
            retry: None,
        }
    }

    /// Puts an event at the end of the queue. `kind` is the message's name in `containerd.events`.
    pub(crate) fn push(&mut self, topic: &'static str, kind: &str, message: &impl Message) {
        if self.address.is_none() || (kind == "TaskOOM" && self.queue.len() >= MANY) {
            return;
        }
        self.queue.push_back(Event {
            topic,
            at: Timestamp::now(),
            content: Any::new(&format!("containerd.events.{kind}"), message),
        });
    }

    /// Whether all that happened has been taken.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// When to call [`Events::go_on`] though nothing has happened.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.retry
    }

    /// Does what can be done now.
    pub(crate) fn go_on(&mut self, poller: &Poller) {
        if self.retry.is_some_and(|retry| retry > Instant::now()) {
            return;
        }
        self.retry = None;
        if let Err(error) = self.exchange(poller) {
            log::debug!("events wait for containerd: {error}");
            self.client = None;
            self.under_way = false;
            self.retry = (!self.queue.is_empty()).then(|| Instant::now() + PAUSE);
        }
    }

    fn exchange(&mut self, poller: &Poller) -> std::io::Result<()> {
        if let Some(client) = &mut self.client {
            client.flush()?;
            if let Some(status) = client.answer()? {
                if let (Some(status), Some(event)) = (status, self.queue.front()) {
                    // It would say so again.
                    log::warn!(
                        "containerd refuses event {}: {}",
                        event.topic,
                        status.message
                    );
                }
                self.under_way = false;
                self.queue.pop_front();
            }
        }
        while !self.under_way
            && let Some(event) = self.queue.front()
        {
            let client = match &mut self.client {
                Some(client) => client,
                None => {
                    let address = self.address.as_deref().unwrap_or("".as_ref());
                    let client = Client::connect(address)?;
                    poller.readable(&client, Token::Events)?;
                    self.client.insert(client)
                }
            };
            client.request(SERVICE, METHOD, forward(&self.namespace, event))?;
            self.under_way = true;
        }
        if let Some(client) = &self.client {
            poller.also_writable(client, Token::Events, client.has_unsent())?;
        }
        Ok(())
    }
}

fn forward(namespace: &str, event: &Event) -> Vec<u8> {
    let envelope = Envelope {
        timestamp: Some(event.at),
        namespace: namespace.to_owned(),
        topic: event.topic.to_owned(),
        event: Some(event.content.clone()),
    };
    let request = ForwardRequest {
        envelope: Some(envelope),
    };
    request.encode_to_vec()
}
