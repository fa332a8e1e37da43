// Areas of a disk: what is allocated, what differs, in which units it is told, and what of it one
// answer of QueryChangedDiskAreas holds, rightly or wrongly.
package simulator

import (
	"bytes"
	"io"
	"os"

	"github.com/vmware/govmomi/vim25/types"
)

// areaRule spoils answers of QueryChangedDiskAreas.
type areaRule struct {
	rule
	Kind string
}

// units widens extents to whole units, and joins those that touch.
func units(extents []extent, unit, size int64) []extent {
	var res []extent
	for _, e := range extents {
		e = extent{e.start / unit * unit, (e.end + unit - 1) / unit * unit}
		if e.end > size {
			e.end = size
		}
		if k := len(res) - 1; k >= 0 && e.start <= res[k].end {
			if e.end > res[k].end {
				res[k].end = e.end
			}
			continue
		}
		res = append(res, e)
	}
	return res
}

// differences compares two disks where either has data, in units; the old one may be smaller.
func differences(f, old *os.File, size int64) []extent {
	data := merged(segments(f, size), segments(old, size))
	unit := vadp.unit
	if vadp.unaligned {
		unit = sector
	}
	var res []extent
	for _, span := range units(data, 64<<10, size) {
		for at := span.start; at < span.end; at += 64 << 10 {
			end := at + 64<<10
			if end > span.end {
				end = span.end
			}
			a, b := content(f, at, end), content(old, at, end)
			if bytes.Equal(a, b) {
				continue
			}
			for s := int64(0); s < end-at; s += sector {
				if !bytes.Equal(a[s:s+sector], b[s:s+sector]) {
					res = append(res, extent{at + s, at + s + sector})
				}
			}
		}
	}
	res = units(res, unit, size)
	if vadp.unaligned {
		res = loosened(res, size)
	}
	return withFalsePositives(res, size)
}

func content(f *os.File, start, end int64) []byte {
	buf := make([]byte, end-start)
	_, _ = io.ReadFull(io.NewSectionReader(f, start, end-start), buf)
	return buf
}

// merged is the union of two sorted lists, sorted.
func merged(a, b []extent) []extent {
	var res []extent
	for len(a) > 0 || len(b) > 0 {
		if len(b) == 0 || len(a) > 0 && a[0].start <= b[0].start {
			res, a = append(res, a[0]), a[1:]
		} else {
			res, b = append(res, b[0]), b[1:]
		}
	}
	return res
}

// loosened moves ends by a few sectors, always the same way for the same area.
func loosened(extents []extent, size int64) []extent {
	var res []extent
	for _, e := range extents {
		e.start -= e.start / sector * 7 % 5 * sector
		e.end += e.end / sector * 3 % 5 * sector
		if e.start < 0 {
			e.start = 0
		}
		res = append(res, e)
	}
	return units(res, sector, size)
}

func withFalsePositives(extents []extent, size int64) []extent {
	if vadp.falsePositives == 0 {
		return extents
	}
	var more []extent
	for at := int64(0); at < size; at += vadp.unit * vadp.falsePositives {
		more = append(more, extent{at, at + vadp.unit})
	}
	return units(merged(extents, more), sector, size)
}

func without(extents, holes []extent) []extent {
	for _, h := range holes {
		res := []extent{}
		for _, e := range extents {
			if h.end <= e.start || e.end <= h.start {
				res = append(res, e)
				continue
			}
			if e.start < h.start {
				res = append(res, extent{e.start, h.start})
			}
			if h.end < e.end {
				res = append(res, extent{h.end, e.end})
			}
		}
		extents = res
	}
	return extents
}

// answer is the part of the areas from an offset on that one answer may hold.
func answer(areas []extent, start, size int64) *types.DiskChangeInfo {
	info := &types.DiskChangeInfo{StartOffset: start, Length: size - start}
	for _, e := range areas {
		if e.end <= start {
			continue
		}
		if e.start < start {
			e.start = start
		}
		if len(info.ChangedArea) == vadp.areaCap {
			info.Length = e.start - start
			break
		}
		info.ChangedArea = append(info.ChangedArea, types.DiskChangeExtent{Start: e.start, Length: e.end - e.start})
	}
	return info
}

// spoil makes an answer wrong in the way that a test asked for.
func spoil(info *types.DiskChangeInfo, size int64) *types.DiskChangeInfo {
	for _, r := range vadp.areas {
		if !r.hits("QueryChangedDiskAreas", "") {
			continue
		}
		switch r.Kind {
		case "discontinuous":
			info.StartOffset += 64 << 10
		case "zero":
			info.Length, info.ChangedArea = 0, nil
		case "negative":
			info.Length, info.ChangedArea = -sector, nil
		case "short":
			info.Length, info.ChangedArea = info.Length/2/sector*sector, nil
			vadp.areas = append(vadp.areas, &areaRule{rule{Count: -1}, "zero"})
		case "endless":
			info.Length, info.ChangedArea = sector, nil
		case "beyond":
			info.ChangedArea = append(info.ChangedArea, types.DiskChangeExtent{Start: size, Length: 64 << 10})
		case "outside":
			info.Length = info.Length / 2 / sector * sector
			info.ChangedArea = []types.DiskChangeExtent{{Start: info.StartOffset + info.Length, Length: sector}}
		case "overlap":
			whole := types.DiskChangeExtent{Start: info.StartOffset, Length: info.Length}
			info.ChangedArea = append(info.ChangedArea, whole, whole)
		}
		return info
	}
	return info
}
