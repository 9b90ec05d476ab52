package route

import (
	"sync/atomic"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// Dynamic holds the table that RDS brings. Load may be called from anywhere and costs one atomic
// load; Apply and Remove are called by whoever owns the subscription, one at a time.
type Dynamic struct {
	env   Env
	table atomic.Pointer[Table]
}

// NewDynamic makes a holder without a table; what comes is compiled with env.
func NewDynamic(env Env) *Dynamic { return &Dynamic{env: env} }

// Load returns the table in force; nil if there is none.
func (d *Dynamic) Load() *Table { return d.table.Load() }

// Apply compiles a configuration and puts it in force. After an error, whose text is that of the
// NACK, the table before it stays.
func (d *Dynamic) Apply(m *routev3.RouteConfiguration) error {
	t, err := Compile(m, d.env)
	if err != nil {
		return err
	}
	d.table.Store(t)
	return nil
}

// Remove takes the table away: the management server has no such resource any more.
func (d *Dynamic) Remove() { d.table.Store(nil) }
