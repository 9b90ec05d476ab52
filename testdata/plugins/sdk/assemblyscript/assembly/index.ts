// See ../../README.md.
export * from "@solo-io/proxy-runtime/proxy";
import {
  Context, FilterHeadersStatusValues, GrpcStatusValues, HeaderPair, LogLevelValues, RootContext, log,
  registerRootContext, send_local_response, stream_context,
} from "@solo-io/proxy-runtime";

class Root extends RootContext {
  createContext(context_id: u32): Context {
    return new Stream(context_id, this);
  }
}

class Stream extends Context {
  tag: string;

  constructor(context_id: u32, root: Root) {
    super(context_id, root);
    const configuration = root.getConfiguration();
    this.tag = configuration == "" ? "none" : configuration;
  }

  onRequestHeaders(a: u32, end_of_stream: bool): FilterHeadersStatusValues {
    const request = stream_context.headers.request;
    if (request.get(":path") == "/hello") {
      const header = new HeaderPair(String.UTF8.encode("x-tag"), String.UTF8.encode(this.tag));
      send_local_response(200, "", String.UTF8.encode("hello\n"), [header], <GrpcStatusValues>-1);
      return FilterHeadersStatusValues.StopIteration;
    }
    const count = request.get_headers().length;
    request.add("x-header-count", count.toString());
    request.replace("x-tag", this.tag);
    request.remove("x-secret");
    return FilterHeadersStatusValues.Continue;
  }

  onResponseHeaders(a: u32, end_of_stream: bool): FilterHeadersStatusValues {
    stream_context.headers.response.add("x-plugin", this.tag);
    return FilterHeadersStatusValues.Continue;
  }

  onLog(): void {
    log(LogLevelValues.info, "done");
  }
}

registerRootContext((context_id: u32) => { return new Root(context_id); }, "headers");
