//! Traps in the phase that the request header `x-trap` names: request, request-body, response,
//! response-body, log. `memory` allocates without end.
use proxy_wasm::traits::*;
use proxy_wasm::types::*;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::new(Root) });
}}

struct Root;

impl Context for Root {}

impl RootContext for Root {
    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { place: String::new() }))
    }
}

struct Stream {
    place: String,
}

impl Stream {
    fn at(&self, place: &str) {
        if self.place == place {
            panic!("told to trap at {place}");
        }
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.place = self.get_http_request_header("x-trap").unwrap_or_default();
        self.at("request");
        if self.place == "memory" {
            let mut all = Vec::new();
            loop {
                all.push(std::hint::black_box(vec![1u8; 1 << 20]));
            }
        }
        Action::Continue
    }

    fn on_http_request_body(&mut self, _: usize, _: bool) -> Action {
        self.at("request-body");
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.at("response");
        Action::Continue
    }

    fn on_http_response_body(&mut self, _: usize, _: bool) -> Action {
        self.at("response-body");
        Action::Continue
    }

    fn on_log(&mut self) {
        self.at("log");
    }
}
