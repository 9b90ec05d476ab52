//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// The programs that run in pods are this test again, told by E2E_RUN what to be.
const runAs = "E2E_RUN"

// program runs one of them; it returns the process's exit code.
func program(name string, args []string) int {
	run := map[string]func([]string) error{"serve": serveApp, "get": getOnce, "load": loadUntilEOF, "tcp": talkTCP}[name]
	if run == nil {
		fmt.Fprintln(os.Stderr, "no program", name)
		return 2
	}
	if err := run(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// reply is what the application answers: who it is and what it saw.
type reply struct {
	Status   int
	Answered http.Header // of the response
	Pod      string
	Host     string
	Remote   string
	Proto    string
	Headers  http.Header // of the request
	Err      string
}

// serveApp is the application of a pod: HTTP/1 and HTTP/2 on 8080 and 8082, lines over TCP on 9000.
func serveApp(args []string) error {
	name := args[0]
	l, err := net.Listen("tcp", ":9000")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintf(c, "hello from %s\n", name)
				lines := bufio.NewScanner(c)
				for lines.Scan() {
					fmt.Fprintf(c, "%s: %s\n", name, lines.Text())
				}
			}()
		}
	}()
	s := &http.Server{Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-pod", name)
		_ = json.NewEncoder(w).Encode(&reply{Pod: name, Host: r.Host, Remote: r.RemoteAddr, Proto: r.Proto, Headers: r.Header})
	})
	for _, addr := range []string{":8080", ":8082"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		go func() { _ = s.Serve(l) }()
	}
	select {}
}

func ask(c *http.Client, url, host string, header ...string) (out reply) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return reply{Err: err.Error()}
	}
	req.Host = host
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		return reply{Err: err.Error()}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return reply{Err: err.Error()}
	}
	if res.StatusCode == http.StatusOK {
		_ = json.Unmarshal(b, &out)
	}
	out.Status, out.Answered = res.StatusCode, res.Header
	return out
}

// getOnce asks once and prints the reply: protocol, URL, host, header names and values.
func getOnce(args []string) error {
	t := &http.Transport{DisableKeepAlives: true, Protocols: new(http.Protocols)}
	t.Protocols.SetHTTP1(args[0] == "h1")
	t.Protocols.SetUnencryptedHTTP2(args[0] == "h2")
	return json.NewEncoder(os.Stdout).Encode(ask(&http.Client{Transport: t}, args[1], args[2], args[3:]...))
}

// tally is what a load has met.
type tally struct {
	Total  int
	Failed int
	First  string // failure
	Pods   map[string]int
}

// loadUntilEOF asks again and again until standard input ends, and prints a tally.
func loadUntilEOF(args []string) error {
	var mu sync.Mutex
	t := tally{Pods: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			c := &http.Client{Transport: &http.Transport{}}
			for ctx.Err() == nil {
				r := ask(c, args[0], args[1])
				mu.Lock()
				t.Total++
				if r.Status != http.StatusOK {
					if t.Failed++; t.First == "" {
						t.First = fmt.Sprintf("%s: %d %s %v", time.Now().Format(time.TimeOnly), r.Status, r.Err, r.Answered)
					}
				}
				t.Pods[r.Pod]++
				mu.Unlock()
				time.Sleep(2 * time.Millisecond) // a load, not a flood
			}
		})
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	cancel()
	wg.Wait()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(&t)
}

// talkTCP prints the greeting of a server that speaks first, and its echo of a line.
func talkTCP(args []string) error {
	c, err := net.DialTimeout("tcp", args[0], 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(c)
	hello, err := r.ReadString('\n')
	if err != nil {
		return fmt.Errorf("no greeting: %w", err)
	}
	if _, err := io.WriteString(c, "ping\n"); err != nil {
		return err
	}
	echo, err := r.ReadString('\n')
	if err != nil {
		return fmt.Errorf("no echo: %w", err)
	}
	_, err = fmt.Print(hello, echo)
	return err
}
