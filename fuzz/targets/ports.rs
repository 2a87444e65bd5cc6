//! A published port, in the words of `docker run -p`.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(ports) = network::Port::parse(text) {
        assert!((1..=65_536).contains(&ports.len()));
        assert!(ports.iter().all(|port| port.container_port > 0));
        // A range is one of the machine's too, unless any port will do.
        let first = &ports[0];
        for (offset, port) in ports
            .iter()
            .enumerate()
            .filter(|(_, port)| port.host_port > 0)
        {
            assert_eq!(
                usize::from(port.host_port),
                usize::from(first.host_port) + offset
            );
        }
    }
});
