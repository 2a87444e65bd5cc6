//! The Task service, versions 2 and 3: which call is which function.

mod control;
mod create;
mod delete;
mod start;
mod stats;
mod update;

use prost::Message;

use crate::error::{Code, Failure, Result};
use crate::protos::{Empty, Request};
use crate::shim::Shim;
use crate::ttrpc::Reply;

const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

pub(crate) use start::{pid_file, read_pid};

/// What a call is answered with; `None` when that comes later.
pub(crate) type Answer = Result<Option<Vec<u8>>>;

impl Shim {
    /// Does what a request asks for.
    pub(crate) fn serve_call(&mut self, reply: Reply, request: &Request) -> Answer {
        let Request {
            service,
            method,
            payload,
            ..
        } = request;
        if !SERVICES.contains(&service.as_str()) {
            let text = format!("service {service}");
            return Err(Failure::new(Code::Unimplemented, text));
        }
        log::debug!("{method}");
        match method.as_str() {
            "Create" => self.create(reply, decode(payload)?),
            "Start" => self.start(reply, &decode(payload)?),
            "Exec" => self.exec(decode(payload)?),
            "Delete" => self.delete(reply, &decode(payload)?),
            "Wait" => self.wait(reply, &decode(payload)?),
            "State" => self.state(&decode(payload)?),
            "Kill" => self.kill(&decode(payload)?),
            "Pause" => self.pause(&decode(payload)?),
            "Resume" => self.resume(&decode(payload)?),
            "Pids" => self.pids(&decode(payload)?),
            "Stats" => self.stats(&decode(payload)?),
            "Update" => self.update(reply, decode(payload)?),
            "Checkpoint" => self.checkpoint(reply, &decode(payload)?),
            "ResizePty" => self.resize_pty(&decode(payload)?),
            "CloseIO" => self.close_io(&decode(payload)?),
            "Connect" => self.connect(&decode(payload)?),
            "Shutdown" => self.shutdown(&decode(payload)?),
            _ => Err(Failure::new(
                Code::Unimplemented,
                format!("method {method}"),
            )),
        }
    }
}

fn decode<M: Message + Default>(payload: &[u8]) -> Result<M> {
    M::decode(payload).map_err(|error| Failure::invalid(format!("unmarshal request: {error}")))
}

/// An answer that is there.
pub(crate) fn done(message: &impl Message) -> Answer {
    Ok(Some(message.encode_to_vec()))
}

/// The answer of calls that have nothing to say.
pub(crate) fn empty() -> Answer {
    done(&Empty {})
}
