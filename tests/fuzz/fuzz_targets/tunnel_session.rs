#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| iotcpd_fuzz::fuzz_tunnel_session(input));
