//! Adds `x-plugin-version` with its configuration as the value to responses. The configuration
//! "broken" is refused, "trap" traps while it is read.
use proxy_wasm::traits::*;
use proxy_wasm::types::*;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
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
        self.version = String::from_utf8_lossy(&bytes).trim().to_string();
        match self.version.as_str() {
            "broken" => false,
            "trap" => panic!("told to trap"),
            _ => true,
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { version: self.version.clone() }))
    }
}

struct Stream {
    version: String,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.add_http_response_header("x-plugin-version", &self.version);
        Action::Continue
    }
}
