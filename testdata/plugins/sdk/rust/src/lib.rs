//! See ../README.md.
use proxy_wasm::traits::*;
use proxy_wasm::types::*;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::new(Root { tag: "none".into() }) });
}}

struct Root {
    tag: String,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        if size > 0 {
            let bytes = self.get_plugin_configuration().unwrap_or_default();
            self.tag = String::from_utf8_lossy(&bytes).into_owned();
        }
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { tag: self.tag.clone() }))
    }
}

struct Stream {
    tag: String,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        if self.get_http_request_header(":path").as_deref() == Some("/hello") {
            self.send_http_response(200, vec![("x-tag", &self.tag)], Some(b"hello\n"));
            return Action::Pause;
        }
        let count = self.get_http_request_headers().len();
        self.add_http_request_header("x-header-count", &count.to_string());
        self.set_http_request_header("x-tag", Some(&self.tag));
        self.set_http_request_header("x-secret", None);
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.add_http_response_header("x-plugin", &self.tag);
        Action::Continue
    }

    fn on_log(&mut self) {
        proxy_wasm::hostcalls::log(LogLevel::Info, "done").unwrap();
    }
}
