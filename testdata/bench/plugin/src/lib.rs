// The plugin of the benchmarks. Its configuration is a version text.
//
// Each request: all headers are read, one is added that says which version saw the request; the
// response gets the version that saw it. A request with x-loop never comes back.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> {
        Box::new(Root { version: String::new() })
    });
}}

struct Root {
    version: String,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let bytes = self.get_plugin_configuration().unwrap_or_default();
        self.version = String::from_utf8(bytes).unwrap_or_default();
        // A broken version for the swap benchmark: refused at configuration.
        self.version != "broken"
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { version: self.version.clone() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    version: String,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let mut bytes = 0;
        let mut forever = false;
        for (name, value) in self.get_http_request_headers() {
            bytes += name.len() + value.len();
            forever |= name == "x-loop";
        }
        while forever {
            std::hint::black_box(&mut bytes);
        }
        if bytes > 0 {
            self.add_http_request_header("x-plugin-request", &self.version);
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if !self.version.starts_with('-') {
            self.add_http_response_header("x-plugin-response", &self.version);
        }
        Action::Continue
    }
}
