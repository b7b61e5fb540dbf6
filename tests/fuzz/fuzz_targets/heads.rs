#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| iotcpd::fuzzing::fuzz_heads(input));
