package wire

// SetShared says that several streams write to the connection: Options.Shared for a codec that finds
// out only once the connection is made. Call it before anything is written.
func (c *Conn) SetShared() { c.opt.Shared = true }
