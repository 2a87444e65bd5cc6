//! What `kubectl attach`, `exec` and `port-forward` are to a runtime, over websockets. SPDY, which ends in the same functions of containerd, is not
//! spoken here.

use k8s_cri::v1::*;
use runtime_tests::{eventually, within};

use crate::kubelet;
use crate::kubelet::container;
use crate::websocket::WebSocket;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

#[test]
fn attach() {
    let Some(kubelet) = kubelet() else { return };
    let pod = kubelet.pod(&kubelet.pod_config("pod"));
    let script = "while read line; do echo heard $line; done; echo end; exec sleep 1000000";
    let mut config = container("one", &["sh", "-c", script]);
    (config.stdin, config.stdin_once) = (true, true);
    let container_id = pod.start(config);
    let request = AttachRequest {
        container_id,
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let url = kubelet.ask(async |mut pods| pods.attach(request).await).url;
    within(&kubelet.containerd.engine.network(), || {
        let mut socket = WebSocket::open(&url, "").unwrap();
        socket.send(STDIN, b"hello\n").unwrap();
        assert_eq!(socket.read_until(STDOUT, "\n").unwrap(), "heard hello\n");
    });
    // With `stdinOnce` the end of the first client's input is the container's.
    eventually("input has ended", || {
        pod.log("one")
            .contains(&"stdout F end".to_owned())
            .then_some(())
    });
    pod.remove();
}

#[test]
fn exec_with_a_terminal() {
    let Some(kubelet) = kubelet() else { return };
    let pod = kubelet.pod(&kubelet.pod_config("pod"));
    let container_id = pod.start(container("one", &["sleep", "1000000"]));
    let script =
        "while ! stty size | grep '40 100'; do :; done; read word; echo said $word; exit 7";
    let request = ExecRequest {
        container_id,
        cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
        tty: true,
        stdin: true,
        stdout: true,
        stderr: false,
    };
    let url = kubelet.ask(async |mut pods| pods.exec(request).await).url;
    within(&kubelet.containerd.engine.network(), || {
        let mut socket = WebSocket::open(&url, "").unwrap();
        socket
            .send(RESIZE, br#"{"Width":100,"Height":40}"#)
            .unwrap();
        socket.read_until(STDOUT, "40 100").unwrap();
        socket.send(STDIN, b"word\n").unwrap();
        socket.read_until(STDOUT, "said word").unwrap();
        let status = socket.read_until(ERROR, "ExitCode").unwrap();
        assert!(status.contains("\"7\""), "{status}");
    });
    pod.remove();
}

#[test]
fn port_forward() {
    let Some(kubelet) = kubelet() else { return };
    let pod = kubelet.pod(&kubelet.pod_config("pod"));
    let script =
        "mkdir /www; echo served > /www/index.html; exec httpd -f -p 127.0.0.1:8080 -h /www";
    let id = pod.start(container("one", &["sh", "-c", script]));
    eventually("the server listens", || {
        let (_, sockets) = kubelet.exec(&id, &["netstat", "-ltn"]);
        sockets.contains("127.0.0.1:8080 ").then_some(())
    });
    let request = PortForwardRequest {
        pod_sandbox_id: pod.id.clone(),
        port: vec![8080],
    };
    let url = kubelet
        .ask(async |mut pods| pods.port_forward(request).await)
        .url;
    within(&kubelet.containerd.engine.network(), || {
        let mut socket = WebSocket::open(&url, "?port=8080").unwrap();
        // Each of the port's two channels begins with its number.
        for _ in 0..2 {
            let (_, port) = socket.receive().unwrap().unwrap();
            assert_eq!(port, 8080_u16.to_le_bytes());
        }
        socket.send(0, b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let answer = socket.read_until(0, "served").unwrap();
        assert!(answer.contains("served"), "{answer}");
    });
    pod.remove();
}
