package attribute

import (
	"strings"

	"sidecar/api/header"
	"sidecar/api/stream"
)

// Kept is a copy of a stream's record and of its maps, which stays when the stream has ended.
type Kept struct {
	Info stream.Info
	maps [3]header.Map
}

// Keep copies the record and the maps; strings of the record that may point into maps are copied with
// them.
func Keep(live *stream.Info) *Kept {
	k := &Kept{Info: *live}
	for i, m := range []**header.Map{&k.Info.Request, &k.Info.Response, &k.Info.ResponseTrailers} {
		if *m != nil {
			k.maps[i].CopyFrom(*m)
			*m = &k.maps[i]
		}
	}
	k.Info.RequestTrailers = nil
	i := &k.Info
	for _, s := range []*string{
		&i.Details, &i.RouteName, &i.VirtualHost, &i.VirtualCluster, &i.Cluster, &i.RequestID,
		&i.LocalReplyBody, &i.UpstreamAltStatName, &i.OriginalPath, &i.ResponseTrigger,
		&i.ConnectionTermDetail,
	} {
		*s = strings.Clone(*s)
	}
	return k
}
