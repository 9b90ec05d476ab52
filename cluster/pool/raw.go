package pool

// CloseRaw closes the raw connections of TCP proxies at once; HTTP connections and streams that wait
// are left alone. It may be called from any goroutine, outside streams and locks.
func (p *Pool) CloseRaw() {
	p.mu.Lock()
	raws := make([]*TCP, 0, len(p.tcp))
	for c := range p.tcp {
		raws = append(raws, c)
	}
	p.mu.Unlock()
	for _, c := range raws {
		c.Close(true)
	}
}
