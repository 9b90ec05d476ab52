//! Edits bodies as the request header `x-body` says: append, prepend, replace, upper (buffers the whole
//! body first), reply (answers with what it received). Responses are treated likewise by `x-response`.
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
        Some(Box::new(Stream { request: String::new(), response: String::new() }))
    }
}

struct Stream {
    request: String,
    response: String,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.request = self.get_http_request_header("x-body").unwrap_or_default();
        self.response = self.get_http_request_header("x-response").unwrap_or_default();
        if !self.request.is_empty() {
            self.set_http_request_header("content-length", None);
        }
        Action::Continue
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        match self.request.as_str() {
            "append" if end => self.set_http_request_body(size, 0, b".append"),
            "prepend" if end => self.set_http_request_body(0, 0, b"prepend."),
            "replace" => self.set_http_request_body(0, size, if end { b"replaced" } else { b"" }),
            "upper" => {
                if !end {
                    return Action::Pause;
                }
                let body = self.get_http_request_body(0, size).unwrap_or_default();
                self.set_http_request_body(0, size, &body.to_ascii_uppercase());
            }
            "reply" => {
                if !end {
                    return Action::Pause;
                }
                let body = self.get_http_request_body(0, size).unwrap_or_default();
                self.send_http_response(200, vec![("x-replied", "yes")], Some(&body));
                return Action::Pause;
            }
            _ => {}
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if !self.response.is_empty() {
            self.set_http_response_header("content-length", None);
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        match self.response.as_str() {
            "append" if end => self.set_http_response_body(size, 0, b".append"),
            "replace" => self.set_http_response_body(0, size, if end { b"replaced" } else { b"" }),
            "upper" => {
                if !end {
                    return Action::Pause;
                }
                let body = self.get_http_response_body(0, size).unwrap_or_default();
                self.set_http_response_body(0, size, &body.to_ascii_uppercase());
            }
            _ => {}
        }
        Action::Continue
    }
}
