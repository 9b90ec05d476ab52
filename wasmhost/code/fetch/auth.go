package fetch

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Credentials are what a docker configuration has for a registry. The zero value is none.
type Credentials struct {
	Username, Password string
	// IdentityToken is exchanged for an access token, instead of a password.
	IdentityToken string
}

// maxSecretBytes bounds a docker configuration.
const maxSecretBytes = 1 << 20

// ParseSecret reads a docker configuration (.dockerconfigjson) and finds what it has for a host.
func ParseSecret(secret []byte, host string) (Credentials, error) {
	var file struct {
		Auths map[string]struct {
			Username      string `json:"username"`
			Password      string `json:"password"`
			Auth          string `json:"auth"`
			IdentityToken string `json:"identitytoken"`
		} `json:"auths"`
	}
	if len(secret) > maxSecretBytes {
		return Credentials{}, errors.New("image pull secret: too large")
	}
	if err := json.Unmarshal(secret, &file); err != nil {
		return Credentials{}, errors.New("image pull secret: not a docker configuration in JSON") // Its text is secret.
	}
	for key, a := range file.Auths {
		if !sameHost(key, host) {
			continue
		}
		c := Credentials{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken}
		if a.Auth != "" {
			plain, err := base64.StdEncoding.DecodeString(a.Auth)
			user, password, ok := strings.Cut(string(plain), ":")
			if err != nil || !ok {
				return Credentials{}, fmt.Errorf("image pull secret: auth of %s is not base64 of user:password", host)
			}
			c.Username, c.Password = user, strings.TrimRight(password, "\x00")
		}
		return c, nil
	}
	return Credentials{}, nil
}

// sameHost tells whether a key of a docker configuration, which may be a URL, is about a host.
func sameHost(key, host string) bool {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	key, _, _ = strings.Cut(key, "/")
	if key == "docker.io" {
		key = dockerHost
	}
	return key == host
}

// challenge is what a registry asks for.
type challenge struct {
	scheme string // in lower case
	params map[string]string
}

// parseChallenge reads a WWW-Authenticate header: a scheme and name="value" pairs.
func parseChallenge(text string) challenge {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	c := challenge{strings.ToLower(scheme), map[string]string{}}
	for rest != "" {
		name, after, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		name = strings.ToLower(strings.Trim(name, " ,\t"))
		var value string
		if quoted, isQuoted := strings.CutPrefix(after, `"`); isQuoted {
			value, rest, _ = strings.Cut(quoted, `"`)
		} else {
			value, rest, _ = strings.Cut(after, ",")
		}
		c.params[name] = strings.TrimSpace(value)
	}
	return c
}

// authorize answers a registry's challenge: the value of the Authorization header to try again with.
func (s *session) authorize(ctx context.Context, text string) (string, error) {
	ch := parseChallenge(text)
	switch ch.scheme {
	case "basic":
		if s.creds.Username == "" {
			return "", errors.New("the registry wants a name and password, and there is no image pull secret for it")
		}
		if !s.mayTrust() {
			return "", errors.New("no password is sent without TLS")
		}
		return basic(s.creds), nil
	case "bearer":
		return s.token(ctx, ch)
	}
	return "", fmt.Errorf("the registry wants %q to authenticate, which is neither basic nor bearer", ch.scheme)
}

func basic(c Credentials) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
}

// mayTrust tells whether the registry is spoken to in a way that suits a password.
func (s *session) mayTrust() bool {
	return s.base.Scheme == "https" || loopback(s.base) || s.c.insecure(s.base)
}

// maxTokenBytes bounds a token server's answer.
const maxTokenBytes = 1 << 20

// token asks the token server of a challenge for access to pull. A registry must not use us to reach
// what it can't reach itself, nor take the password to where it pleases: see realm.
func (s *session) token(ctx context.Context, ch challenge) (string, error) {
	u, err := s.realm(ch.params["realm"])
	if err != nil {
		return "", err
	}
	scope := cmp.Or(ch.params["scope"], "repository:"+s.ref.Repository+":pull")
	var req *http.Request
	if s.creds.IdentityToken != "" {
		form := url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {s.creds.IdentityToken}, "scope": {scope},
			"service": {ch.params["service"]}, "client_id": {userAgent},
		}
		req, err = http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(form.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
	} else {
		q := u.Query()
		q.Set("scope", scope)
		if service := ch.params["service"]; service != "" {
			q.Set("service", service)
		}
		u.RawQuery = q.Encode()
		req, err = http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
		if err == nil && s.creds.Username != "" {
			req.Header.Set("Authorization", basic(s.creds))
		}
	}
	if err != nil {
		return "", err
	}
	resp, err := s.c.do(req, hostPort(s.base))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", statusError(u, resp)
	}
	body, err := read(resp.Body, maxTokenBytes)
	if err != nil {
		return "", &Error{URL: u.Redacted(), Err: err, Temporary: true}
	}
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || cmp.Or(answer.Token, answer.AccessToken) == "" {
		return "", &Error{URL: u.Redacted(), Err: errors.New("the answer has no token")}
	}
	return "Bearer " + cmp.Or(answer.Token, answer.AccessToken), nil
}

// realm is the token server of a challenge. It must be reached by HTTPS, but on the registry's own host
// as the registry itself is. That its address is a public one, unless it is the registry's, is seen to
// when it is dialled: names may lead anywhere.
func (s *session) realm(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return nil, errors.New("the registry's challenge names no token server")
	}
	same := hostPort(u) == hostPort(s.base) && u.Scheme == s.base.Scheme
	if u.User != nil || (u.Scheme != "https" && !(same && s.mayTrust())) {
		return nil, fmt.Errorf("the registry's challenge leads to %s, which is not https", u.Redacted())
	}
	return u, nil
}
