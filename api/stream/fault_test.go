package stream

import (
	"errors"
	"testing"
)

func TestFlags(t *testing.T) {
	t.Parallel()
	for flags, want := range map[Flag]string{
		0:                 "-",
		NoHealthyUpstream: "UH",
		UpstreamConnectionFailure | UpstreamRetryLimitExceeded: "URX,UF",
		DownstreamConnectionTermination | DelayInjected:        "DI,DC",
		UnconditionalDropOverload:                              "UDO",
	} {
		if got := flags.String(); got != want {
			t.Errorf("%d: %s, want %s", flags, got, want)
		}
	}
	if got := (NoRouteFound | DownstreamProtocolError).Long(); got != "NoRouteFound,DownstreamProtocolError" {
		t.Error(got)
	}
	for i := range numFlags {
		f := Flag(1) << i
		if back, ok := FlagByName(f.String()); !ok || back != f {
			t.Errorf("%s is not found", f)
		}
	}
	if _, ok := FlagByName("XX"); ok {
		t.Error("XX is a flag")
	}
}

func TestFault(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	f := &Fault{Reason: ReasonRemoteConnectionFailure, Err: cause}
	if f.Error() != "remote connection failure: cause" || !errors.Is(f, cause) {
		t.Error(f.Error())
	}
	if got := (&Fault{Details: "d"}).Error(); got != "d" {
		t.Error(got)
	}
	if got := ReasonConnectError.Token(); got != "remote_error_with_CONNECT_request" {
		t.Error(got)
	}
}

func TestAccessLogTypes(t *testing.T) {
	t.Parallel()
	if got := LogDownstreamTunnelSuccessfullyEstablished.String(); got != "DownstreamTunnelSuccessfullyEstablished" {
		t.Error(got)
	}
	for p, want := range map[Protocol]string{ProtocolNone: "", HTTP10: "HTTP/1.0", HTTP11: "HTTP/1.1", HTTP2: "HTTP/2", HTTP3: "HTTP/3"} {
		if p.String() != want {
			t.Errorf("%q, want %q", p.String(), want)
		}
	}
}
