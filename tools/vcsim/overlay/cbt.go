// Changed block tracking: epochs and changeIds, what QueryChangedDiskAreas answers, and its lies.
//
// Each changeId keeps the disk as it was frozen then; changes are found by comparing content. An
// epoch (the changeId's uuid) ends with a reset: of earlier ids nothing is known then.
package simulator

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const sector = 512

// tracker is the tracking of one disk of one VM during one epoch.
type tracker struct {
	uuid string
	seq  int
	lies []lie
}

// lie is a range whose changes between two changeIds are not reported.
type lie struct {
	extent
	after     int  // the changeId that was the newest
	allocated bool // not in answers to "*" either
}

func (vm *VirtualMachine) tracker(d *types.VirtualDisk) *tracker {
	key := vm.Self.Value + "/" + back(d).Uuid
	t := vadp.trackers[key]
	if t == nil {
		t = &tracker{uuid: spacedUUID(uuid.New().String())}
		vadp.trackers[key] = t
	}
	return t
}

func (t *tracker) file(seq int) string {
	return path.Join(vadp.state, "cbt", strings.ReplaceAll(t.uuid, " ", ""), strconv.Itoa(seq))
}

// track gives the disk, which is about to be frozen, a changeId; "" if tracking is off.
func (vm *VirtualMachine) track(d *types.VirtualDisk) (string, error) {
	if !isTrue(vm.Config.ChangeTrackingEnabled) {
		return "", nil
	}
	t := vm.tracker(d)
	t.seq++
	return fmt.Sprintf("%s/%d", t.uuid, t.seq), freeze(flat(back(d).FileName), t.file(t.seq))
}

// resetTracking ends the epochs of all disks of the VM.
func (vm *VirtualMachine) resetTracking(why string) {
	for key, t := range vadp.trackers {
		if strings.HasPrefix(key, vm.Self.Value+"/") {
			_ = os.RemoveAll(path.Dir(t.file(0)))
			delete(vadp.trackers, key)
		}
	}
	vm.logLine("vmx - Change tracking invalid; reinitializing (" + why + ")")
}

// vadpTracking is called before a reconfiguration: tracking that is turned off is lost.
func vadpTracking(vm *VirtualMachine, spec *types.VirtualMachineConfigSpec) {
	if spec.ChangeTrackingEnabled == nil || *spec.ChangeTrackingEnabled {
		return
	}
	vm.resetTracking("turned off")
	for _, d := range vmDisks(vm.Config.Hardware.Device) {
		if back(d) != nil {
			back(d).ChangeId = ""
		}
	}
}

// areaRule spoils answers of QueryChangedDiskAreas.
type areaRule struct {
	rule
	Kind string
}

// QueryChangedDiskAreas answers for a snapshot's disk, or the live one's without a snapshot.
func (vm *VirtualMachine) QueryChangedDiskAreas(req *types.QueryChangedDiskAreas) soap.HasFault {
	body := &methods.QueryChangedDiskAreasBody{}
	devices := vm.Config.Hardware.Device
	if req.Snapshot != nil {
		s, ok := Map.Get(*req.Snapshot).(*VirtualMachineSnapshot)
		if !ok {
			body.Fault_ = Fault("", &types.ManagedObjectNotFound{Obj: *req.Snapshot})
			return body
		}
		devices = s.Config.Hardware.Device
	}
	info, fault := vm.changedAreas(devices, req)
	if fault != nil {
		body.Fault_ = Fault(vadpMessage(fault), fault)
		return body
	}
	body.Res = &types.QueryChangedDiskAreasResponse{Returnval: *info}
	return body
}

func (vm *VirtualMachine) changedAreas(devices []types.BaseVirtualDevice, req *types.QueryChangedDiskAreas) (*types.DiskChangeInfo, types.BaseMethodFault) {
	var disk *types.VirtualDisk
	for _, d := range vmDisks(devices) {
		if d.Key == req.DeviceKey && back(d) != nil {
			disk = d
		}
	}
	if disk == nil {
		return nil, &types.InvalidArgument{InvalidProperty: "deviceKey"}
	}
	fileFault := &types.FileFault{File: back(disk).FileName}
	f, err := os.Open(flat(back(disk).FileName))
	if err != nil || back(disk).ChangeId == "" || !isTrue(vm.Config.ChangeTrackingEnabled) {
		return nil, fileFault
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fileFault
	}
	if req.StartOffset < 0 || req.StartOffset >= st.Size() {
		return nil, &types.InvalidArgument{InvalidProperty: "startOffset"}
	}
	var areas []extent
	if req.ChangeId == "*" {
		areas = units(segments(f, st.Size()), vadp.unit, st.Size())
		areas = without(areas, vm.tracker(disk).hidden(-1, 0))
	} else if areas = vm.changes(disk, f, st.Size(), req.ChangeId); areas == nil {
		return nil, fileFault
	}
	return spoil(answer(areas, req.StartOffset, st.Size()), st.Size()), nil
}

// changes are the areas changed since a changeId; nil if nothing is known of it.
func (vm *VirtualMachine) changes(disk *types.VirtualDisk, f *os.File, size int64, changeID string) []extent {
	t := vm.tracker(disk)
	now, seq := split(back(disk).ChangeId)
	then, since := split(changeID)
	if now != then || then != t.uuid || since < 1 || since > seq {
		return nil
	}
	old, err := os.Open(t.file(since))
	if err != nil {
		return nil
	}
	defer old.Close()
	areas := append([]extent{}, differences(f, old, size)...)
	return without(areas, t.hidden(since, seq))
}

func split(changeID string) (string, int) {
	at := strings.LastIndex(changeID, "/")
	if at < 0 {
		return changeID, 0
	}
	seq, _ := strconv.Atoi(changeID[at+1:])
	return changeID[:at], seq
}

// hidden are the lies about changes between two changeIds, or (since < 0) about what is allocated.
func (t *tracker) hidden(since, until int) []extent {
	var res []extent
	for _, l := range t.lies {
		if since < 0 && l.allocated || since >= 0 && since <= l.after && l.after < until {
			res = append(res, l.extent)
		}
	}
	return res
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
