//! Networks of containers on one machine: bridge, veth, addresses, nftables rules, published ports. Knows the path of a network
//! namespace, never a container.
