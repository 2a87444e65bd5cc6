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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::protos::events::TaskOom;
    use crate::ttrpc::Connection;

    /// The ids in the events that a connection brings, each of which it answers.
    fn take(connection: &mut Connection, topics: &mut Vec<String>) {
        let mut calls = Vec::new();
        connection.receive(&mut calls).unwrap();
        for call in calls {
            let request = call.request.unwrap();
            assert_eq!((&*request.service, &*request.method), (SERVICE, METHOD));
            let forward = ForwardRequest::decode(&*request.payload).unwrap();
            let envelope = forward.envelope.unwrap();
            assert_eq!(envelope.namespace, "ns");
            let event = TaskOom::decode(&*envelope.event.unwrap().value).unwrap();
            topics.push(event.container_id);
            connection.respond(call.stream, Ok(Vec::new())).unwrap();
        }
    }

    fn accept(listener: &UnixListener) -> Connection {
        let socket = listener.accept().unwrap().0;
        socket.set_nonblocking(true).unwrap();
        Connection::new(socket)
    }

    #[test]
    fn events_wait_for_containerd_and_keep_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ttrpc");
        let poller = Poller::new().unwrap();
        let mut events = Events::new("ns", Some(format!("unix://{}", path.display())));
        for id in ["a", "b", "c"] {
            let container_id = id.to_owned();
            events.push("/tasks/oom", "TaskOOM", &TaskOom { container_id });
        }
        events.go_on(&poller);
        assert!(!events.is_idle() && events.deadline().is_some());

        let listener = UnixListener::bind(&path).unwrap();
        let mut taken = Vec::new();
        events.retry = None;
        events.go_on(&poller);
        take(&mut accept(&listener), &mut taken);
        // The first is answered, and containerd has gone before the second.
        events.go_on(&poller);
        events.retry = None;
        events.go_on(&poller);
        let mut connection = accept(&listener);
        for _ in 0..3 {
            take(&mut connection, &mut taken);
            events.go_on(&poller);
        }
        assert_eq!(taken, ["a", "b", "c"]);
        assert!(events.is_idle());
    }

    #[test]
    fn without_an_address_nothing_is_kept() {
        let mut events = Events::new("ns", None);
        events.push("/tasks/oom", "TaskOOM", &TaskOom::default());
        assert!(events.is_idle());
    }
}
