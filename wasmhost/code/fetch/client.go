package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Options of a Client. The zero value has the defaults.
type Options struct {
	// MaxBytes bounds a module, packed and unpacked; 256 MiB by default.
	MaxBytes int64
	// InsecureHosts may be spoken to without TLS, or with a certificate that nobody vouches for. "*" is
	// all of them.
	InsecureHosts []string
	// Roots verify certificates; nil is the system's.
	Roots *x509.CertPool
}

// Client fetches. Safe for concurrent use.
type Client struct {
	o         Options
	transport *http.Transport
	unchecked *http.Transport // for InsecureHosts
}

const (
	defaultMaxBytes = 256 << 20
	maxRedirects    = 10
	userAgent       = "sidecar"
)

// New makes a client. Close it.
func New(o Options) *Client {
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	c := &Client{o: o}
	c.transport = c.newTransport(&tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12})
	c.unchecked = c.newTransport(&tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // for hosts that the operator names
		MinVersion:         tls.VersionTLS12,
	})
	return c
}

func (c *Client) newTransport(t *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext: dial, TLSClientConfig: t, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 30 * time.Second,
		IdleConnTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10,
		// What is fetched is checked as it was published, so nothing unpacks it on the way.
		DisableCompression: true,
	}
}

// Close ends idle connections.
func (c *Client) Close() {
	c.transport.CloseIdleConnections()
	c.unchecked.CloseIdleConnections()
}

// Error is a fetch that failed.
type Error struct {
	URL string
	// Status is the answer's, 0 if there was none.
	Status int
	Err    error
	// Temporary: it may succeed when it is tried again.
	Temporary bool
}

func (e *Error) Error() string { return e.URL + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Temporary tells whether trying again makes sense.
func Temporary(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Temporary
}

// named is the key of the host that the operator has named: its addresses are not judged.
type named struct{}

// dial connects to the host that the operator named, or to a public address: where an answer leads to
// (a redirect, a token server) isn't the operator's choice.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	if host, _ := ctx.Value(named{}).(string); host != addr {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			a, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			if !public(a.Addr()) {
				return fmt.Errorf("%s leads to %s, an address that is not public, which only the configuration may name", addr, a.Addr())
			}
			return nil
		}
	}
	return d.DialContext(ctx, network, addr)
}

func public(a netip.Addr) bool {
	a = a.Unmap()
	for _, p := range privateRanges {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && !a.IsLoopback() && !a.IsLinkLocalUnicast()
}

// privateRanges are those that netip calls global: shared addresses of carriers, benchmarks, tests and
// IPv6's ways to write an IPv4 address.
//
//nolint:gochecknoglobals // immutable table
var privateRanges = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("2002::/16"),
}

// hostPort is the address that a URL is dialled at.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func (c *Client) insecure(u *url.URL) bool {
	return slices.Contains(c.o.InsecureHosts, "*") || slices.Contains(c.o.InsecureHosts, u.Host) ||
		slices.Contains(c.o.InsecureHosts, u.Hostname())
}

func loopback(u *url.URL) bool {
	if u.Hostname() == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && a.IsLoopback()
}

// do sends a request. origin is the address that the configuration named. The caller closes the body of
// an answer, whose status is any.
func (c *Client) do(req *http.Request, origin string) (*http.Response, error) {
	var transport http.RoundTripper = c.transport
	if c.insecure(req.URL) {
		transport = c.unchecked
	}
	client := http.Client{
		Transport: transport,
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			switch {
			case len(via) >= maxRedirects:
				return errors.New("too many redirects")
			case next.URL.Scheme != "https" && next.URL.Scheme != "http":
				return fmt.Errorf("redirected to %s", next.URL.Redacted())
			case via[0].URL.Scheme == "https" && next.URL.Scheme != "https":
				return errors.New("redirected from https to http")
			}
			return nil
		},
	}
	req.Header.Set("User-Agent", userAgent)
	resp, err := client.Do(req.WithContext(context.WithValue(req.Context(), named{}, origin)))
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return nil, &Error{URL: req.URL.Redacted(), Err: err, Temporary: req.Context().Err() == nil}
	}
	return resp, nil
}

// sizeError is something larger than this many bytes.
type sizeError int64

func (e sizeError) Error() string { return fmt.Sprintf("larger than %d bytes", int64(e)) }

// read takes a body of at most limit bytes.
func read(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, sizeError(limit)
	}
	return b, err
}

// statusError is an answer that isn't wanted. As Istio's agent does, server errors that may pass are
// tried again.
func statusError(u *url.URL, resp *http.Response) error {
	status := resp.StatusCode
	temporary := status == http.StatusTooManyRequests || status == http.StatusRequestTimeout ||
		(status >= 500 && status != 501 && status != 505 && status != 511)
	return &Error{
		URL: u.Redacted(), Status: status, Temporary: temporary,
		Err: fmt.Errorf("answered %s", strings.TrimSpace(resp.Status)),
	}
}

// HTTP fetches a module from an http:// or https:// address: a plain one, or one in a gzip stream, a tar
// archive or both.
func (c *Client) HTTP(ctx context.Context, address string) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("%s is no http:// or https:// address", u.Redacted())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, err
	}
	if u.User != nil {
		password, _ := u.User.Password()
		req.SetBasicAuth(u.User.Username(), password)
	}
	resp, err := c.do(req, hostPort(u))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(u, resp)
	}
	body, err := read(resp.Body, c.o.MaxBytes)
	if err != nil {
		_, large := errors.AsType[sizeError](err)
		return nil, &Error{URL: u.Redacted(), Err: err, Temporary: ctx.Err() == nil && !large}
	}
	code, err := Unpack(body, c.o.MaxBytes)
	if err != nil {
		return nil, &Error{URL: u.Redacted(), Err: err}
	}
	return code, nil
}
