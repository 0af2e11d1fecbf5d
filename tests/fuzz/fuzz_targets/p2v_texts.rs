#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hako_tests::fuzz::p2v_texts(bytes));
